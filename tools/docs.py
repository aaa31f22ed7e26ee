"Build the docs site without Quarto: nbdev processes the notebooks, smalldocs renders them, and every internal link is checked."
import re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

root = Path(__file__).resolve().parent.parent

class Page(HTMLParser):
    "The ids and links of one page, and its title and description"
    def __init__(self, text):
        super().__init__()
        self.ids,self.links,self.title,self.description = set(),[],'',''
        self.inside = False
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[key] for key in ('id', 'name') if attrs.get(key)}
        if tag == 'meta' and attrs.get('name') == 'description': self.description = attrs.get('content') or ''
        self.links += [attrs[key] for key in ('href', 'src') if attrs.get(key)]
        self.inside = tag == 'title'
    def handle_endtag(self, tag): self.inside = False
    def handle_data(self, data): self.title += data*self.inside

def faults(site):
    "One line for each thing that is wrong with the built site"
    pages = {path: Page(path.read_text(encoding='utf-8')) for path in sorted(site.rglob('*.html'))}
    for path,page in pages.items():
        name,text = path.relative_to(site),path.read_text(encoding='utf-8')
        if not page.title.strip(): yield f'{name}: no title'
        if 'Traceback (most recent call last)' in text: yield f'{name}: a traceback'
        for link in page.links:
            url,anchor = urldefrag(link)
            if urlparse(link).scheme or link.startswith('//'): continue
            target = (site/url.lstrip('/') if url.startswith('/') else path.parent/unquote(url)).resolve() if url else path
            if target.is_dir(): target = target/'index.html'
            if not target.exists(): yield f'{name}: broken link {link}'
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids: yield f'{name}: no such anchor {link}'

def mend(site):
    "Hits among the outputs link to cells of notebooks; on the site they lead to the page instead"
    for path in site.rglob('*.html'):
        text = path.read_text(encoding='utf-8')
        def page(link): return f'href="{link[1]}.html"' if (path.parent/f'{link[1]}.html').exists() else 'href="#"'
        mended = re.sub(r'href="([^":]+)\.ipynb#cell-id=[^"]*"', page, text)
        if mended != text: path.write_text(mended, encoding='utf-8')

def main():
    if '--mend' in sys.argv: return mend(root/'_docs')
    from nbdev.serve import proc_nbs
    shutil.rmtree(root/'_proc', ignore_errors=True); shutil.rmtree(root/'_docs', ignore_errors=True)
    proc_nbs(n_workers=0)
    smalldocs = Path(sys.executable).with_name('smalldocs')
    subprocess.run([smalldocs, 'render', root/'_proc', '--quiet'], check=True)
    site = next(path for path in (root/'_proc/_docs', root/'_docs') if path.exists())
    if site != root/'_docs': shutil.move(site, root/'_docs')
    mend(root/'_docs')
    found = list(faults(root/'_docs'))
    for fault in found: print(fault)
    print(f"{len(list((root/'_docs').rglob('*.html')))} pages in _docs, {len(found)} faults")
    return bool(found)

if __name__ == '__main__': sys.exit(main())
