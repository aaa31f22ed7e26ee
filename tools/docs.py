"""Build the docs site and check it.

python tools/docs.py            nbdev processes the notebooks, smalldocs renders them: nothing but Python is needed
python tools/docs.py --quarto   Quarto renders them, as for the deployed site
python tools/docs.py --check    only check what lies in _docs

Pages keep the names of their notebooks. nbdev would take the number off, and then `02_index` and `index` were one page.
"""
import ast, json, os, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse
import readme

root,site_url = readme.root,readme.site
void = {'area', 'base', 'br', 'col', 'embed', 'hr', 'img', 'input', 'link', 'meta', 'source', 'track', 'wbr'}

class Page(HTMLParser):
    "The ids and links of one page, its title and description, its prose, its code, and how many outputs show nothing"
    def __init__(self, text):
        super().__init__()
        self.ids,self.links,self.title,self.description = set(),[],'',''
        self.prose,self.code,self.empty,self.open = '',[],0,[]
        self.feed(text)
    def inside(self, *tags): return any(tag in tags for tag,_ in self.open)
    def seen(self):
        for _,output in self.open:
            if output is not None: output.append(True)
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[key] for key in ('id', 'name') if attrs.get(key)}
        if tag == 'meta' and attrs.get('name') == 'description': self.description = attrs.get('content') or ''
        self.links += [attrs[key] for key in ('href', 'src') if attrs.get(key)]
        if tag == 'pre': self.code.append('')
        if tag in ('img', 'svg', 'hr', 'iframe', 'button'): self.seen()
        if tag not in void: self.open.append((tag, [] if 'cell-output' in (attrs.get('class') or '').split() else None))
    def handle_endtag(self, tag):
        while self.inside(tag):
            closed,output = self.open.pop()
            self.empty += output == []
            if closed == tag: break
    def handle_data(self, data):
        if data.strip(): self.seen()
        if self.inside('title') and not self.inside('svg'): self.title += data
        elif self.inside('pre'): self.code[-1] += data
        elif not self.inside('script', 'style', 'code', 'head', 'textarea'): self.prose += data

def internal(link):
    "A link without the site's own address; None if it leads elsewhere"
    if link.startswith(site_url): return '/' + link[len(site_url):]
    return None if urlparse(link).scheme or link.startswith('//') else link

def target_of(link, path, site):
    "The file that an internal link leads to, and the anchor in it"
    url,anchor = urldefrag(link)
    url = url.removeprefix(urlparse(site_url).path.rstrip('/')) # the 404 page, which is shown anywhere, names the whole path
    target = (site/url.lstrip('/') if url.startswith('/') else path.parent/unquote(url)).resolve() if url else path
    return (target/'index.html' if target.is_dir() else target),unquote(anchor)

def faults(site):
    "One line for each thing that is wrong with the built site"
    site = Path(site).resolve()
    pages = {path: Page(path.read_text(encoding='utf-8')) for path in sorted(site.rglob('*.html'))}
    for path in site.rglob('*.css'):
        if re.search(r'url\(["\']?https?:', path.read_text(encoding='utf-8')): yield f'{path.relative_to(site)}: fetches from another server'
    for path,page in pages.items():
        name = path.relative_to(site)
        if not page.title.strip(): yield f'{name}: no title'
        if not page.description.strip(): yield f'{name}: no description'
        if any('Traceback (most recent call last)' in code for code in page.code): yield f'{name}: a traceback'
        if page.empty: yield f'{name}: {page.empty} outputs that show nothing'
        for code in page.code:
            if re.match(r'\s*#\s*\|', code): yield f'{name}: a raw directive, {code.split()[:3]}'
        if found := re.search(r'^\s*(:{3,}.*|#\|.*|\{\{<.*)', page.prose, re.M): yield f'{name}: raw markup, {found[0].strip()[:40]!r}'
        for link in filter(None, map(internal, dict.fromkeys(page.links))):
            target,anchor = target_of(link, path, site)
            if not target.exists(): yield f'{name}: broken link {link}'
            elif anchor and target in pages and anchor not in pages[target].ids: yield f'{name}: no such anchor {link}'

def notebooks(nbs):
    "The notebooks that become pages"
    return sorted(path for path in nbs.rglob('*.ipynb') if not any(part[0] in '._' for part in path.relative_to(nbs).parts))

def is_silent(cell):
    "Does a visible cell end in a value, and show none?"
    source = ''.join(cell['source'])
    flags = set(re.findall(r'^\s*#\s*\|\s*([\w-]+)', source, re.M))
    if cell['cell_type'] != 'code' or cell['outputs'] or flags & {'hide', 'export', 'exporti', 'exports', 'eval'}: return False
    try: body = ast.parse(re.sub(r'^(\s*)[%!].*', r'\1pass', source, flags=re.M)).body
    except SyntaxError: return False
    last = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    return bool(last) and (not isinstance(last, ast.Call) or getattr(last.func, 'id', '') == 'print')

def silent(nbs):
    "One line for each notebook with cells whose output was not stored"
    for path in notebooks(nbs):
        cells = [i for i,cell in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells']) if is_silent(cell)]
        if cells: yield f'{path.relative_to(nbs)}: no stored output in cells {", ".join(map(str, cells))}'

def prune(config, nbs):
    "Take pages that are not there out of the sidebar; one line for each, and for each notebook that it does not name"
    lines = config.read_text(encoding='utf-8').splitlines(keepends=True)
    named = [found[1] for line in lines if (found := re.match(r'\s*- ([\w/]+\.ipynb)\s*$', line))]
    here = [path.relative_to(nbs).as_posix() for path in notebooks(nbs)]
    gone = set(named)-set(here)
    config.write_text(''.join(line for line in lines if line.strip()[2:] not in gone), encoding='utf-8')
    yield from (f'_quarto.yml: the sidebar names {page}, which is not in nbs' for page in named if page in gone)
    yield from (f'_quarto.yml: the sidebar does not name {page}' for page in here if page not in named)

def stage():
    "Process the notebooks into _proc, each to be rendered under its own name; the faults of the sidebar"
    from nbdev.serve import proc_nbs
    for folder in ('_proc', '_docs'): shutil.rmtree(root/folder, ignore_errors=True)
    proc_nbs(n_workers=0)
    for path in notebooks(root/'_proc'):
        nb = json.loads(path.read_text(encoding='utf-8'))
        nb['cells'][0]['source'] = [line for line in nb['cells'][0]['source'] if not line.startswith('output-file:')]
        path.write_text(json.dumps(nb), encoding='utf-8')
    return list(prune(root/'_proc/_quarto.yml', root/'nbs'))

def render(quarto):
    "Turn _proc into _docs"
    program = ['quarto', 'render', '.', '--no-cache'] if quarto else [Path(sys.executable).with_name('smalldocs'), 'render', '.', '--quiet']
    subprocess.run(program, cwd=root/'_proc', check=True)
    shutil.move(root/'_proc/_docs', root/'_docs')

def plain(name): return re.sub(r'^\d+[a-z]*_', '', name)

def mend(site):
    "Links to cells of notebooks, and to pages under the names that nbdev gives them, lead to the pages themselves"
    pages = {path: set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding='utf-8'))) for path in sorted(site.rglob('*.html'))}
    def meant(path, url, anchor):
        "The page that a link is about: of several by one name, the one with the anchor"
        wanted = site/url
        found = [page for page in pages if page == wanted or page.parent == wanted.parent and plain(page.name) == wanted.name]
        best = next((page for page in found if anchor in pages[page]), (found or [None])[0])
        return best and os.path.relpath(best, path.parent) + (f'#{anchor}' if anchor else '')
    for path in pages:
        def hit(link): return f'href="{link[1]}.html"' if (path.parent/f'{link[1]}.html').resolve() in pages else 'href="#"'
        def own(link): return f'<a href="{meant(path, link[1], link[2] or "") or link[0][9:-1]}"'
        text = re.sub(r'href="([^":]+)\.ipynb#cell-id=[^"]*"', hit, path.read_text(encoding='utf-8'))
        text = re.sub(rf'<a href="{re.escape(site_url)}([\w/]+\.html)(?:#([^"]*))?"', own, text)
        path.write_text(text, encoding='utf-8')

def stay_here(site):
    "Themes fetch their fonts from another server; the fonts of the reader's own system do"
    for path in site.rglob('*.css'):
        text = path.read_text(encoding='utf-8')
        path.write_text(re.sub(r'@import url\(["\']?https?:[^)]*\);', '', text), encoding='utf-8')

def twin(path):
    "A page as Markdown: the notebook's prose, its code, and what the code returned"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    links = lambda page, anchor: f'{page}.html.md', lambda picture: picture
    found = [block for cell in cells for block in readme.blocks(cell, *links) if not re.match(r'```python\n#\s*\|\s*default_exp', block)]
    found = [re.sub(r'^#\s*\|.*\n', '', block, flags=re.M) if block.startswith('```python') else block for block in found]
    return '\n\n'.join(found) + '\n'

def write_twins(site, nbs):
    "Put NAME.html.md beside each page, under nbdev's name for it too, which the docstrings of the modules give; list all in llms.txt"
    rows = []
    for page in sorted(site.rglob('*.html'), key=lambda page: (len(page.parts), page.name != 'index.html', page)):
        source = nbs/page.relative_to(site).with_suffix('.ipynb')
        if not source.exists(): continue
        for name in {page.name, plain(page.name)}:
            if name == page.name or not page.with_name(name).exists():
                page.with_name(f'{name}.md').write_text(twin(source), encoding='utf-8')
        text = page.read_text(encoding='utf-8')
        about = Page(text).description.strip()
        link = f'<link rel="alternate" type="text/markdown" href="{page.name}.md"></head>'
        page.write_text(text.replace('</head>', link, 1), encoding='utf-8')
        rows.append(f'- [{source.stem}]({site_url}{page.relative_to(site).as_posix()}.md): {about}')
    head = (nbs/'llms.txt').read_text(encoding='utf-8').split('## Docs')[0].rstrip()
    (site/'llms.txt').write_text(head + '\n\n## Docs\n\n' + '\n'.join(rows) + '\n', encoding='utf-8')

def main():
    found,site = [],root/'_docs'
    if '--check' not in sys.argv:
        found = stage()
        render('--quarto' in sys.argv)
        mend(site.resolve())
        stay_here(site)
        write_twins(site, root/'nbs')
    found += [*faults(site), *silent(root/'nbs')]
    for fault in found: print(fault)
    print(f"{len(list(site.rglob('*.html')))} pages in _docs, {len(found)} faults")
    return bool(found)

if __name__ == '__main__': sys.exit(main())
