"Make README.md from nbs/index.ipynb, without Quarto; with --check, fail if it is stale or leads nowhere."
import json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
site = 'https://semsearch.github.io/semsearch/'
pictures = 'https://raw.githubusercontent.com/semsearch/semsearch/main/nbs/'

def join(text): return ''.join(text).strip('\n')

def outputs(cell):
    "What a code cell printed and returned, as text"
    for output in cell['outputs']:
        text = join(output.get('text') or output.get('data', {}).get('text/plain') or '')
        if text: yield f'```\n{text}\n```'

def blocks(cell, page, picture):
    "A cell as blocks of markdown, linked as in `linked`"
    source = join(cell['source'])
    if cell['cell_type'] == 'markdown': yield linked(source, page, picture)
    elif cell['cell_type'] == 'code' and not re.match(r'#\s*\|\s*hide', source):
        yield f'```python\n{source}\n```'
        yield from outputs(cell)

def linked(text, page, picture):
    "Markdown whose links to notebooks lead to `page(path, anchor)`, and whose pictures come from `picture(path)`"
    text = re.sub(r'(!\[[^\]]*\]\()(?!\w+:)([^)\s]+)', lambda link: link[1]+picture(link[2]), text)
    return re.sub(r'(?<=\]\()((?:\.\./)?[\w/]+)\.ipynb(#[\w-]*)?(?=\))', lambda link: page(link[1], link[2] or ''), text)

def readme():
    "The whole text of the README"
    cells = json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']
    note = '<!-- made from nbs/index.ipynb by tools/readme.py; edit that notebook -->'
    links = lambda path, anchor: f'{site}{path}.html{anchor}', lambda path: f'{pictures}{path}'
    return '\n\n'.join([note, *(block for cell in cells for block in blocks(cell, *links))]) + '\n'

def missing(text):
    "Notebooks and pictures that the README leads to and that are not there"
    pages,images = (re.findall(re.escape(place)+pattern, text) for place,pattern in ((site, r'([\w/]+)\.html'), (pictures, r'([^)\s]+)')))
    files = [*(f'nbs/{page}.ipynb' for page in pages), *(f'nbs/{image}' for image in images)]
    return [file for file in dict.fromkeys(files) if not (root/file).exists()]

def main():
    file,text = root/'README.md',readme()
    for path in missing(text): print(f'README.md leads to {path}, which is not there', file=sys.stderr)
    if '--check' not in sys.argv: file.write_text(text, encoding='utf-8')
    elif not file.exists() or file.read_text(encoding='utf-8') != text: return 'README.md is stale: run python tools/readme.py'
    return int(bool(missing(text)))

if __name__ == '__main__': sys.exit(main())
