"Every check of the site's builder can fail, and a good page passes all of them."
import importlib, json, sys
from pathlib import Path
import pytest

tools = Path(__file__).resolve().parent.parent/'tools'

@pytest.fixture(scope='module')
def docs():
    sys.path.insert(0, str(tools))
    try: yield importlib.import_module('docs')
    finally: sys.path.remove(str(tools))

good = '''<!doctype html><html><head><title>T</title><meta name="description" content="About it"></head><body>
<h2 id="part">Part</h2><p>Write <code>#| export</code> above it. <a href="#part">up</a> <a href="b.html#part">b</a>
<a href="https://semsearch.github.io/semsearch/b.html">b</a> <a href="https://example.org/none">away</a></p>
<pre><code>x = 1 #| no directive</code></pre><div class="cell-output"><pre><code>1</code></pre></div>
<div class="cell-output"><img src="data:image/png;base64,AAAA"></div></body></html>'''

def site(tmp_path, page, **others):
    for name,text in {'a': page, 'b': good, **others}.items(): (tmp_path/f'{name}.html').write_text(text)
    return tmp_path

def test_a_good_page_has_no_faults(docs, tmp_path):
    assert list(docs.faults(site(tmp_path, good))) == []

@pytest.mark.parametrize('old,new,fault', [
    ('<title>T</title>', '<title> </title>', 'no title'),
    ('content="About it"', 'content=""', 'no description'),
    ('<code>1</code>', '<code>Traceback (most recent call last)\nKeyError</code>', 'a traceback'),
    ('<code>1</code>', '<code> </code>', '1 outputs that show nothing'),
    ('<code>x = 1 ', '<code>#| export\nx = 1 ', 'a raw directive'),
    ('<p>Write', '<p>\n::: {.callout}\nWrite', 'raw markup'),
    ('<p>Write', '<p>\n{{< include x >}}\nWrite', 'raw markup'),
    ('href="#part"', 'href="#parts"', 'no such anchor #parts'),
    ('b.html#part', 'b.html#parts', 'no such anchor b.html#parts'),
    ('b.html#part', 'c.html', 'broken link c.html'),
    ('semsearch/b.html', 'semsearch/c.html', 'broken link /c.html'),
    ('src="data:image/png;base64,AAAA"', 'src="gone.png"', 'broken link gone.png')])
def test_each_fault_is_found(docs, tmp_path, old, new, fault):
    assert old in good
    found = list(docs.faults(site(tmp_path, good.replace(old, new, 1))))
    assert len(found) == 1 and found[0].startswith(f'a.html: {fault}'), found

def test_links_lead_to_the_page_that_is_meant(docs, tmp_path):
    link = 'https://semsearch.github.io/semsearch/'
    page = good.replace('b.html#part', f'{link}index.html#find').replace('href="#part"', 'href="02_index.ipynb#cell-id=a1"')
    folder = site(tmp_path, page, index=good, **{'02_index': good.replace('id="part"', 'id="find"').replace('#part"', '#find"', 1)})
    docs.mend(folder.resolve())
    assert list(docs.faults(folder)) == []
    assert docs.Page((folder/'a.html').read_text()).links[:3] == ['02_index.html', '02_index.html#find', 'b.html']

def test_nothing_is_fetched_from_another_server(docs, tmp_path):
    (tmp_path/'a.css').write_text('@import url(https://fonts.example.org/css2?family=Lato:ital,wght@0,400;1,700&display=swap);a { color: red }')
    assert list(docs.faults(tmp_path)) == ['a.css: fetches from another server']
    docs.stay_here(tmp_path)
    assert list(docs.faults(tmp_path)) == [] and (tmp_path/'a.css').read_text() == 'a { color: red }'

def notebook(path, *sources, outputs=()):
    cells = [dict(cell_type='code', source=source, outputs=list(outputs), metadata={}, id=f'c{i}') for i,source in enumerate(sources)]
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    return path

def test_values_without_a_stored_output_are_found(docs, tmp_path):
    quiet = ['x = 1', 'test_eq(1, 1)', '#| hide\nx', '#| export\nx', '#| eval: false\nx', 'import x', 'for i in y: print(i)']
    notebook(tmp_path/'a.ipynb', *quiet)
    assert list(docs.silent(tmp_path)) == []
    notebook(tmp_path/'a.ipynb', 'x', 'print(x)', 'x = 1\nf"{x}"', '#| slow\nx, y')
    assert list(docs.silent(tmp_path)) == ['a.ipynb: no stored output in cells 0, 1, 2, 3']

def test_the_sidebar_and_the_notebooks_agree(docs, tmp_path):
    for name in ('a', 'b'): notebook(tmp_path/f'{name}.ipynb', 'x = 1')
    config = tmp_path/'_quarto.yml'
    config.write_text('contents:\n  - a.ipynb\n  - tutorials/gone.ipynb\n')
    assert list(docs.prune(config, tmp_path)) == ['_quarto.yml: the sidebar names tutorials/gone.ipynb, which is not in nbs',
                                                  '_quarto.yml: the sidebar does not name b.ipynb']
    assert config.read_text() == 'contents:\n  - a.ipynb\n'

def test_pages_have_markdown_twins(docs, tmp_path):
    (tmp_path/'nbs').mkdir(); (tmp_path/'site').mkdir()
    (tmp_path/'nbs/llms.txt').write_text('# semsearch\n\n> What it is.\n')
    notebook(tmp_path/'nbs/01_a.ipynb', '#| export\nx = 1', '#| hide\ny', outputs=[dict(output_type='stream', text='[b](02_b.ipynb)\n')])
    (tmp_path/'site/01_a.html').write_text(good)
    docs.write_twins(tmp_path/'site', tmp_path/'nbs')
    text = (tmp_path/'site/01_a.html.md').read_text()
    assert text == (tmp_path/'site/a.html.md').read_text() == '```python\nx = 1\n```\n\n```\n[b](02_b.ipynb)\n```\n'
    assert list(docs.faults(tmp_path/'site')) == ['01_a.html: broken link b.html#part', '01_a.html: broken link /b.html']
    assert (tmp_path/'site/llms.txt').read_text().endswith('- [01_a](https://semsearch.github.io/semsearch/01_a.html.md): About it\n')

def test_the_readme_leads_somewhere(docs):
    assert docs.readme.missing(docs.readme.readme()) == []
    assert docs.readme.missing(f'[a]({docs.site_url}no.html) ![b]({docs.readme.pictures}images/no.png)') == ['nbs/no.ipynb', 'nbs/images/no.png']
