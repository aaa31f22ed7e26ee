"Make README.md from nbs/index.ipynb, without Quarto; with --check, fail if it is stale."
import json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
site = 'https://semsearch.github.io/semsearch/'

def join(text): return ''.join(text).strip('\n')

def outputs(cell):
    "What a code cell printed and returned, as text"
    for output in cell['outputs']:
        text = join(output.get('text') or output.get('data', {}).get('text/plain') or '')
        if text: yield f'```\n{text}\n```'

def blocks(cell):
    "A cell as blocks of markdown"
    source = join(cell['source'])
    if cell['cell_type'] == 'markdown': yield re.sub(r'\]\((\w+)\.ipynb\)', rf']({site}\1.html)', source)
    elif cell['cell_type'] == 'code' and not re.match(r'#\s*\|\s*hide', source):
        yield f'```python\n{source}\n```'
        yield from outputs(cell)

def readme():
    "The whole text of the README"
    cells = json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']
    note = '<!-- made from nbs/index.ipynb by tools/readme.py; edit that notebook -->'
    return '\n\n'.join([note, *(block for cell in cells for block in blocks(cell))]) + '\n'

if __name__ == '__main__':
    file,text = root/'README.md',readme()
    if '--check' not in sys.argv: file.write_text(text, encoding='utf-8')
    elif not file.exists() or file.read_text(encoding='utf-8') != text:
        sys.exit('README.md is stale: run python tools/readme.py')
    else: print('README.md is fresh')
