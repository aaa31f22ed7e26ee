"What the loader promises for files that nobody would put into a chapter: generated, mutated, huge."
import json, os, random, re, string, subprocess, sys, tarfile, time
from html.parser import HTMLParser
from pathlib import Path
import pytest
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt # comes with jupytext
from semsearch.loader import find_notebooks, load_passages, try_read
from semsearch.notebook import Notebook, NotebookError, read_notebook
from semsearch.passages import clean_code, split_notebook, tokenize

def words(text, kind='code'):
    "In prose an underscore may stand for emphasis"
    return set(re.findall(r'\w+' if kind == 'code' else r'[^\W_]+', text))

def write(path, cells, **meta):
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5, **meta)))
    return path

class Rendered(HTMLParser):
    "What somebody sees of a page, as another library renders it"
    def __init__(self, source): super().__init__(); self.text = ''; self.feed(MarkdownIt('commonmark').render(source)); self.close()
    def handle_data(self, data): self.text += re.sub(r'\]\([^()\s]*\)', ' ', data) # it leaves addresses in blocks of HTML
    def handle_starttag(self, tag, attrs): self.text += ' '
    def handle_endtag(self, tag): self.text += ' '

def lost(notebook, passages):
    "Words that a reader of the cells sees, and that stand in no passage"
    kept = ' '.join(' '.join([p.title, *p.headings, p.text]) for p in passages)
    seen = {kind: ' '.join(read(cell.source) for cell in notebook.cells if (cell.cell_type == 'code') == (kind == 'code'))
            for kind,read in dict(code=clean_code, prose=lambda text: Rendered(text).text).items()}
    return set().union(*(words(text, kind) - words(kept, kind) for kind,text in seen.items()))

prose = st.text(st.sampled_from(string.ascii_letters + '  \n\n.#-_éß表😀<>`'), max_size=600)
code = st.lists(st.sampled_from(['def f(x):\n    return x\n', 'import os\n', 'x = [1,\n 2]\n', 'class A:\n    y = 3\n', 'for (\n',
                                 '@cache\ndef g(): pass\n', 'SELECT a FROM b;\n', 'v'*700 + '\n']), max_size=12).map(''.join)
cell = st.one_of(st.builds(lambda text: dict(cell_type='markdown', source=text), prose),
                 st.builds(lambda text: dict(cell_type='code', source=text.splitlines(True)), code))

@settings(max_examples=150, deadline=None)
@given(st.lists(cell, max_size=8))
def test_no_word_is_lost_and_every_passage_fits(tmp_path_factory, cells):
    notebook = read_notebook(write(tmp_path_factory.mktemp('n')/'n.ipynb', cells))
    passages = split_notebook(notebook)
    assert not lost(notebook, passages)
    assert all(len(tokens)+2 <= 256 for tokens in tokenize(passages.attrgot('embed_text')))

def test_identity_survives_moving_saving_and_running(tmp_path):
    cells = [dict(cell_type='markdown', source='# T\nSome prose.'), dict(cell_type='code', source='x = 1', outputs=[]),
             dict(cell_type='markdown', source='## Other\nMore prose.')]
    before = load_passages(write(tmp_path/'a.ipynb', cells))
    ran = [dict(cells[0]), dict(cells[1], source=['x = 1'], execution_count=7, outputs=[dict(output_type='stream', text='1')]), cells[2]]
    assert load_passages(write(tmp_path/'b.ipynb', ran)).attrgot('hash') == before.attrgot('hash')
    assert load_passages(tmp_path/'b.ipynb').attrgot('cell_id') == before.attrgot('cell_id')
    moved = load_passages(write(tmp_path/'a.ipynb', [cells[0], cells[1], dict(cell_type='raw', source=''), cells[2]]))
    assert moved.attrgot('hash') == before.attrgot('hash')

seed = dict(nbformat=4, nbformat_minor=5, metadata=dict(language_info=dict(name='python')), cells=[
    dict(id='a1', cell_type='markdown', metadata={}, source=['# Title\n', 'Words and ![i](data:image/png;base64,AAAA)']),
    dict(id='a1', cell_type='code', metadata={}, execution_count=1, source='def f(x):\n    return x', outputs=[
        dict(output_type='error', ename='E', evalue='v', traceback=['t']), dict(output_type='stream', text=['a\n', 'b'])])])

def wrong_values(rng):
    return rng.choice([None, 3, -1.5, True, [], {}, [[]], [None, 3], 'x', '\x00', '\ud800', 'y'*100_000, {'a': {}}, '#'*50_000, '<'*20_000,
                       '['*10_000, '(' * 5_000, '`'*9_999, '![' * 5_000, '|'*20_000, '&'*9_999, ' '*50_000, '\n'*20_000])

def swap(value, rng):
    "Replace one value somewhere inside"
    if rng.random() < .2 or not isinstance(value, (dict, list)) or not value: return wrong_values(rng)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = swap(value[key], rng)
    return copy

corpus = sorted((Path(__file__).parent/'fixtures/notebooks').glob('*.ipynb'))  # what broke something once, and odd real ones

def spliced(rng):
    "Two files of the corpus, one cut into the other"
    mine,other = (rng.choice(corpus).read_bytes() for _ in range(2))
    at,start = rng.randrange(len(mine)+1),rng.randrange(len(other)+1)
    return mine[:at] + other[start:start+rng.choice([10, 100, 5000])] + mine[at+rng.choice([0, 0, 10, 100]):]

def mutated(rng):
    "The bytes of a damaged notebook"
    kind = rng.randrange(7)
    if kind == 0: return json.dumps(swap(seed, rng)).encode()
    data = bytearray(json.dumps(seed).encode())
    if kind == 1: return bytes(data[:rng.randrange(len(data))])
    if kind == 2:
        for _ in range(rng.randrange(1, 30)): data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)
    if kind == 3: return (rng.choice([b'[', b'{"a":']) * 10_000) + bytes(data)
    if kind == 4: return spliced(rng)
    if kind == 5:
        try: return json.dumps(swap(json.loads(rng.choice(corpus).read_bytes().decode('utf-8', 'replace')), rng)).encode()
        except ValueError: return spliced(rng)
    nested = []
    for _ in range(rng.choice([50, 300])): nested = [nested]
    return json.dumps(dict(seed, cells=[dict(seed['cells'][1], source=nested), seed['cells'][0]])).encode()

def peak_mb():
    "Of this program alone: `ru_maxrss` of a started program begins with the peak of the one that started it"
    return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1]) >> 10

needs_proc = pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='memory is read from /proc')

unprintable = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')

def check_passages(notebook):
    "Nothing is lost, nothing can reach a terminal, and every passage fits"
    passages = split_notebook(notebook)
    anchors = words(' '.join(re.findall(r'\{[^{}]*\}', ' '.join(cell.source for cell in notebook.cells))))
    assert lost(notebook, passages) <= anchors
    split_notebook(notebook, scope='all')
    for passage in passages:
        assert not unprintable.search('\n'.join([passage.title, *passage.headings, passage.text, passage.cell_id]))
    assert all(len(tokens)+2 <= 256 for tokens in tokenize(passages[:5].attrgot('embed_text')))

def fuzz(folder, count, start):
    "Read damaged notebooks; how many could be read, the slowest in seconds, and the peak of this process in MB"
    path,rng = Path(folder)/'x.ipynb',random.Random(start)
    read,slowest = 0,0.
    for i in range(count):
        data = mutated(rng)
        path.write_bytes(data)
        begin = time.perf_counter()
        try:
            found = try_read(path)
            if isinstance(found, Notebook): read += 1; check_passages(found)
            else: assert found.kind and found.reason and not unprintable.search(f'{found}{found.reason}')
        except Exception:
            (Path(folder)/f'fault{start}-{i}.ipynb').write_bytes(data)
            raise
        slowest = max(slowest, time.perf_counter()-begin)
    return read,slowest,peak_mb()

fuzzed = 5000 if os.environ.get('SEMSEARCH_SOAK') else 2000

@needs_proc
@pytest.mark.parametrize('start', range(20, 40) if os.environ.get('SEMSEARCH_SOAK') else [20])
def test_damaged_notebooks_are_read_or_named(tmp_path, start):
    "In a process of its own, whose peak of memory is its own; a hundred thousand of them where time is no matter"
    program = ('import sys; sys.path.insert(0, sys.argv[1]); import test_loader; '
               'print(*test_loader.fuzz(sys.argv[2], *map(int, sys.argv[3:])))')
    done = subprocess.run([sys.executable, '-c', program, str(Path(__file__).parent), str(tmp_path), str(fuzzed), str(start)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read,slowest,peak = map(float, done.stdout.split())
    print(f'{read:.0f} read, {fuzzed-read:.0f} named, slowest {slowest:.2f} s, peak {peak:.0f} MB')
    assert .1 < read/fuzzed < .9 and slowest < 20 and peak < 500

@needs_proc
def test_a_notebook_with_200_mb_of_outputs_is_read_in_bounded_memory(tmp_path):
    line = json.dumps('some "log" line ' + 'x'*80 + '\n')
    outputs = f'[{{"output_type":"stream","text":[{",".join([line]*700_000)}]}},{{"data":{{"image/png":"{"A"*100_000_000}"}}}}]'
    (tmp_path/'big.ipynb').write_text(f'{{"cells":[{{"cell_type":"code","source":"x = 1","outputs":{outputs}}},'
                                      '{"cell_type":"markdown","source":"after"}],"nbformat":4}')
    assert (tmp_path/'big.ipynb').stat().st_size > 170_000_000
    del outputs
    program = ('import re,sys; from semsearch.loader import load_passages; found = load_passages(sys.argv[1]); '
               r'print(len(found), found[0].text.split()[-1], int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) >> 10)')
    done = subprocess.run([sys.executable, '-c', program, str(tmp_path/'big.ipynb')], capture_output=True, text=True)
    count,last,peak = done.stdout.split()
    rss = int(peak) - (tmp_path/'big.ipynb').stat().st_size//2**20  # the memory map counts while it is looked at, and costs nothing
    assert (count, last) == ('1', 'after') and rss < 150, (done.stdout, done.stderr)

def test_finding_agrees_with_git(tmp_path):
    def git(*args): return subprocess.run(['git', '-c', 'core.excludesFile=/dev/null', *args], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    git('init', '-q')
    files = dict.fromkeys(['a.ipynb', 'b_tmp.ipynb', 'keep_tmp.ipynb', 'out/x.ipynb', 'out/keep.ipynb', 'src/out/y.ipynb', 'src/z.ipynb',
                           'src/deep/er/q.ipynb', 'src/deep/er/no.ipynb', 'data/one/f.ipynb', 'data/two/f.ipynb', 'exact.ipynb',
                           'src/exact.ipynb', 'sp ace/é.ipynb', 'local/l.ipynb', 'star/1.ipynb', 'star/10.ipynb'], '{}')
    rules = {'.gitignore': '*_tmp.ipynb\n!\nsrc\\\n*.ip[z-a]\n!keep_tmp.ipynb\n/out/\n/exact.ipynb\ndata/*\n!data/two\n# note\n\nstar/?.ipynb\n',
             'src/.gitignore': 'out\ndeep/**/no.ipynb\n', 'src/deep/er/.gitignore': '!no.ipynb\n', '.git/info/exclude': 'local\n'}
    for name,text in {**files, **rules}.items():
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True); (tmp_path/name).write_text(text)
    theirs = {name for name in git('ls-files', '-z', '--cached', '--others', '--exclude-standard').split('\0') if name.endswith('.ipynb')}
    assert {path.relative_to(tmp_path).as_posix() for path in find_notebooks(tmp_path)} == theirs
    inside = {path.relative_to(tmp_path).as_posix() for path in find_notebooks(tmp_path/'src')}
    assert inside == {name for name in theirs if name.startswith('src/')}

def test_text_notebooks_are_read(tmp_path):
    pytest.importorskip('jupytext')
    (tmp_path/'p.py').write_text('# # Plain text\n\n# Some words.\n\nx = 1\n')
    (tmp_path/'q.md').write_text('---\njupyter:\n  jupytext:\n    text_representation:\n      extension: .md\n---\n\n'
                                 '## Part\n\nWords.\n\n```python\ny = 2\n```\n')
    assert read_notebook(tmp_path/'p.py').title == 'Plain text'
    found = load_passages([tmp_path/'p.py', tmp_path/'q.md'])
    assert not found.errors and 'x = 1' in found[0].text and any('y = 2' in p.text for p in found)

def test_quarto_documents_are_read_without_quarto(tmp_path):
    pytest.importorskip('jupytext')
    (tmp_path/'q.qmd').write_text('---\ntitle: "A report"\n---\n\n## Part\n\nWords.\n\n```{python}\n#| echo: false\ny = 2\n```\n')
    notebook = read_notebook(tmp_path/'q.qmd')
    assert notebook.title == 'A report' and notebook.cells[-1].cell_type == 'code'
    passages = load_passages(tmp_path/'q.qmd')
    assert passages[-1].headings == ('Part',) and 'y = 2' in passages[-1].text and 'echo' not in passages[-1].text

shared = Path(os.environ.get('SEMSEARCH_DATA', Path(__file__).parents[2]/'shared/data'))

@pytest.mark.skipif(not shared.exists(), reason='the judged collection is not at hand')
def test_no_word_of_the_judged_collection_is_lost():
    for path in find_notebooks(shared/'dev/nbs'):
        notebook = read_notebook(path)
        passages = split_notebook(notebook)
        assert not lost(notebook, passages), path
        assert all(len(tokens)+2 <= 256 for tokens in tokenize(passages.attrgot('embed_text')))

@pytest.mark.skipif(not (shared/'bulk.tar.gz').exists() or not os.environ.get('SEMSEARCH_SOAK'), reason='long: set SEMSEARCH_SOAK=1')
def test_no_word_of_the_large_collection_is_lost(tmp_path):
    with tarfile.open(shared/'bulk.tar.gz') as tar: tar.extractall(tmp_path, filter='data')
    paths = find_notebooks(tmp_path)
    for path in paths:
        notebook = read_notebook(path)
        passages = split_notebook(notebook)
        assert not lost(notebook, passages), path
        assert all(len(tokens)+2 <= 160 for tokens in tokenize(passages.attrgot('embed_text'))), path
    assert len(paths) == 2338

# Notebooks as people write them

def read(path, data):
    "A notebook of these bytes, or of these cells"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return read_notebook(path)

def text_of(notebook): return ' '.join(' '.join([p.title, *p.headings, p.text]) for p in split_notebook(notebook))

def one_cell(source, kind='markdown', **meta): return dict(nbformat=4, metadata=meta, cells=[dict(cell_type=kind, source=source, outputs=[])])

@pytest.mark.parametrize('version', [2, 3, 4])
def test_lines_without_line_ends_are_lines(tmp_path, version):
    cells = [dict(cell_type='markdown', source=['# Beekeeping', '', 'Feed the bees', 'in autumn.']),
             dict(cell_type='code', **{'source' if version == 4 else 'input': ['import csv', 'n = 7', 'def feed(b):', '    return b']})]
    nb = dict(nbformat=version, cells=cells) if version == 4 else dict(nbformat=version, worksheets=[dict(cells=cells)])
    notebook = read(tmp_path/'n.ipynb', nb)
    assert notebook.title == 'Beekeeping' and notebook.cells[1].source == 'import csv\nn = 7\ndef feed(b):\n    return b'
    assert {'beesin', 'csvn'}.isdisjoint(words(text_of(notebook)))

def test_entities_have_a_semicolon_and_stand_in_no_code(tmp_path):
    source = 'Ask https://x.org/a?q=1&timestamp=5&region=eu&copy=1 &amp; wait.\n\n```c\ncall(&parameters, "&lt;p&gt;");\n```\n\nInline `&amp;`, and a [b &eacute;](c).'
    text = text_of(read(tmp_path/'n.ipynb', one_cell(source)))
    for part in ('&timestamp=5&region=eu&copy=1 & wait', 'call(&parameters, "&lt;p&gt;")', '`&amp;`', 'b é'): assert part in text, part

def test_directives_stand_at_the_top_and_tables_in_comments_stay(tmp_path):
    code = '#| export\n# | echo: false\nx = load()\n# | name | pressure |\n# |-- raw  barometer files\n# | export | tonnes |'
    passage, = split_notebook(read(tmp_path/'n.ipynb', one_cell(code, 'code')))
    assert words(passage.text) >= {'pressure', 'barometer', 'tonnes'} and 'echo' not in passage.text and passage.facts['exported']
    tree, = split_notebook(read(tmp_path/'n.ipynb', one_cell('# | export | tonnes |\n# |-- raw', 'code')))
    assert 'tonnes' in tree.text and 'exported' not in tree.facts

def test_only_what_is_a_tag_is_taken_out(tmp_path):
    source = 'When k <p we use ridge, and k >p none. <p align="center" hidden>Shown</p > a<b>c</b><br/> x <i and so, y> z <img alt=\'<\' src=a.png>'
    text = text_of(read(tmp_path/'n.ipynb', one_cell(source)))
    assert {'ridge', 'Shown', 'c'} <= words(text) and 'align' not in text and 'src' not in text and 'k >p' in text

@pytest.mark.parametrize('meta,wanted', [
    (dict(kernelspec=dict(name='ir')), 'r'), (dict(kernelspec=dict(name='julia-1.10', display_name='Julia')), 'julia'),
    (dict(kernelspec=dict(name='julia-1.5', language='julia'), language_info=dict(name='python')), 'julia'),
    (dict(kernelspec=dict(name='.net-csharp', language='C#'), language_info=dict(name='polyglot-notebook')), 'c#'),
    (dict(kernelspec=dict(name='python2'), language_info=dict(name='ipython')), 'python'), (dict(language='Julia'), 'julia'), ({}, 'python'),
    (dict(kernelspec=dict(name='python3'), language_info=dict(name='python')), 'python'), (dict(kernelspec=7, language_info=[]), 'python')])
def test_the_language_is_the_kernels(tmp_path, meta, wanted): assert read(tmp_path/'n.ipynb', one_cell('x', 'code', **meta)).language == wanted

def test_the_language_of_text_notebooks_and_magics_of_python_alone(tmp_path):
    pytest.importorskip('jupytext')
    for name,text,wanted in (('a.R', '# # A\n\nx <- 1\n', 'r'), ('a.jl', '# # A\n\nx = 1\n', 'julia'), ('a.qmd', 'w\n\n```{r}\nx\n```\n', 'r')):
        assert read(tmp_path/name, text.encode()).language == wanted
    def passage(language): return split_notebook(read(tmp_path/'n.ipynb', one_cell('%hello world\nx = 1', 'code', kernelspec=dict(language=language))))[0]
    assert 'hello' in passage('matlab').embed_text and 'magics' not in passage('matlab').facts
    assert 'hello' not in passage('python').embed_text and passage('python').facts['magics'] == ['%hello']

@pytest.mark.parametrize('source', ['Bread\n=====\n\nFlour.\n\nThe oven\n--------\n\nHot.', '<h1 align="center">Bread</h1>\n\nFlour.\n\n<h2>The\noven</h2>\n\nHot.',
                                    '<center><H1><b>Bread</b></H1></center>\n\nFlour.\n\n## The oven\n\nHot.', '---\ntitle: >\n  Bread\n---\n\n## The oven\n\nHot.'])
def test_headings_in_every_form(tmp_path, source):
    notebook = read(tmp_path/'n.ipynb', one_cell(source))
    assert notebook.title == 'Bread' and split_notebook(notebook)[-1].headings[-1:] == ('The oven',) and split_notebook(notebook)[-1].text.strip() == 'Hot.'

def test_rules_tables_and_lists_are_no_headings(tmp_path):
    source = 'Two lines\nof prose\n---\n\n- item\n---\n\n|a|b|\n|-|-|\n|1|2|\n\n```\nx\n===\n```\n'
    assert [p.headings for p in split_notebook(read(tmp_path/'n.ipynb', one_cell(source)))] == [()]

def test_pictures_in_code_are_left_out_and_long_words_stay(tmp_path):
    import base64; picture = base64.b64encode(random.Random(1).randbytes(20_000)).decode()
    for kind in ('code', 'raw'):
        passages = split_notebook(read(tmp_path/'n.ipynb', one_cell(f'logo = "{picture}"\nshow(logo)\ngene = "{"ACGT"*100}"', kind)))
        text = ' '.join(passages.attrgot('text'))
        assert len(passages) < 8 and picture[:40] not in text and 'show(logo)' in text and text.count('ACGT') == 100

@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('ending', ['qmd', 'Rmd', 'rmd', 'py', 'PY', 'md'])
def test_text_notebooks_in_any_case_and_encoding(tmp_path, encoding, ending):
    pytest.importorskip('jupytext')
    text = '# %% [markdown]\n# # Harvest\n# When?\n' if ending.lower() == 'py' else '---\ntitle: Harvest\n---\n\nWhen?\n'
    assert read(tmp_path/f'n.{ending}', text.encode(encoding)).title == 'Harvest'

def test_what_cannot_be_a_notebook_says_what_helps(tmp_path):
    (tmp_path/'a.ipynb').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n')
    assert 'git lfs pull' in try_read(tmp_path/'a.ipynb').reason
    (tmp_path/'a.py').write_bytes('# é'.encode('latin-1')); assert try_read(tmp_path/'a.py').kind == 'encoding'

def test_a_pipe_and_a_device_are_not_read(tmp_path):
    "One would wait for a writer, the other has no end: a process of its own tries it"
    os.mkfifo(tmp_path/'pipe.md'); (tmp_path/'zero.md').symlink_to('/dev/zero')
    look = 'import sys; from semsearch.loader import try_read; print(try_read(sys.argv[1]).reason)'
    for name in ('pipe.md', 'zero.md'):
        done = subprocess.run([sys.executable, '-c', look, str(tmp_path/name)], capture_output=True, text=True, timeout=30)
        assert done.stdout == 'not a file\n', done

@pytest.mark.parametrize('wrong', ['a b', 'a"b', "a'b", '<b>', 'a#b', 'a/b', '../a', 'a\nb', 'a\n', 'a\x1b[31m', '', 'x'*65, 7, None, ['a'], 'a.b', 'a&b'])
def test_the_id_of_a_cell_is_word_characters_or_made_anew(tmp_path, wrong):
    cells = [dict(cell_type='markdown', source='First.', id=wrong), dict(cell_type='markdown', source='Second.', id='a_1-É')]
    ids = [cell.cell_id for cell in read_notebook(write(tmp_path/'n.ipynb', cells)).cells]
    assert re.fullmatch('[0-9a-f]{8}', ids[0]) and ids[1] == 'a_1-É'

def test_built_copies_stay_out_and_any_case_of_the_ending_is_found(tmp_path):
    for name in ('NOTE.IPYNB', 'book/intro.ipynb', 'book/_build/html/_sources/intro.ipynb', 'book/_build/jupyter_execute/intro.ipynb'):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True); write(tmp_path/name, [])
    assert find_notebooks(tmp_path).map(lambda path: path.relative_to(tmp_path).as_posix()) == ['NOTE.IPYNB', 'book/intro.ipynb']
