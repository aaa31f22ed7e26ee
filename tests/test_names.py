"A name leads to its definition: in these chapters, in other people's notebooks, in any language; and no question suffers."
import ast, json, os, random, re, tarfile, time
from pathlib import Path
from functools import cache
import numpy as np, pytest
from helpers import opened, write
from semsearch.encoder import Encoder
from semsearch.index import NotebookIndex
from semsearch.measure import load_queries, notebook_run, score_runs
from semsearch.names import defined, definition_phrases, names_in
from semsearch.search import NotebookSearch

root = Path(__file__).parent.parent
data = Path(os.environ.get('SEMSEARCH_DATA', root.parent/'shared/data'))

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('SEMSEARCH_INDEX_DIR', str(tmp_path/'cache'))

@pytest.fixture(scope='module')
def chapters(tmp_path_factory):
    "All chapters, with static vectors"
    paths = [str(path) for path in sorted((root/'nbs').glob('*.ipynb'))]
    with opened(paths, Encoder(), tmp_path_factory.mktemp('names')/'chapters.db') as index:
        index.update(encode=False)
        yield index

@cache
def sources(): return [ast.parse(path.read_text()) for path in sorted((root/'semsearch').glob('*.py'))]

def exported():
    "What the modules export, by their own lists"
    return sorted({name for tree in sources() for node in tree.body if isinstance(node, ast.Assign)
                   and getattr(node.targets[0], 'id', '') == '__all__' for name in ast.literal_eval(node.value)})

def methods():
    "What the modules add to classes"
    return sorted({f'{place.id}.{node.name}' for tree in sources() for node in tree.body if isinstance(node, ast.FunctionDef)
                   and 'patch' in map(ast.unparse, node.decorator_list) and node.args.args
                   and isinstance(place := node.args.args[0].annotation, ast.Name)})

def gives(name, text):
    "By the look of it, does the text define the name? Written apart from what is tested"
    name = re.escape(name)
    assigned = rf'^(?:\w+ ?, ?)*{name}(?: ?, ?\w+)* ?(?::[^=\n]+)?=(?!=)'
    return bool(re.search(rf'^\s*(?:async )?(?:def|class) {name}\b|{assigned}', text, re.M))

def some(names, count=100): return random.Random(0).sample(names, min(count, len(names)))

def share(index, names, query='{}', gives=gives):
    "Of how many names does the first hit give the definition?"
    first = {name: index.search(query.format(name), 1, refresh=False)[0].text for name in names}
    return np.mean([gives(name, text) for name,text in first.items()])

def test_every_exported_name_of_these_chapters_leads_to_its_definition(chapters):
    names = exported()
    assert len(names) > 400
    assert share(chapters, names) >= .98
    assert share(chapters, some(names), 'where is {} defined?') >= .98

def test_a_name_amid_other_words_leads_to_its_definition(chapters):
    names = [name for name in exported() if '_' in name]
    defined = {node.name for tree in sources() for node in tree.body if isinstance(node, ast.FunctionDef)}
    functions = [name for name in names if name in defined]
    assert share(chapters, some(functions), 'how do I use {} with my own files') >= .9

def test_a_method_is_found_by_its_class_and_a_function_by_its_module(chapters):
    def right(name, text): return f'def {name.split(".")[1]}(' in text and re.search(rf'(self:|class ){name.split(".")[0]}\b', text)
    assert share(chapters, some(methods()), gives=lambda *both: bool(right(*both))) >= .95
    hit = chapters.search('loader.find_notebooks', 1, refresh=False)[0]
    assert 'def find_notebooks(' in hit.text and hit.scores['defines'] == 1
    assert not chapters.definition_scores('json.find_notebooks').any() # no such module here

def test_the_beginning_of_a_name_is_enough(chapters):
    names = [name for name in exported() if '_' in name and len(name) > 10]
    def begins(start, text): return any(gives(name, text) for name in re.findall(rf'\b{start}\w*', text))
    assert share(chapters, [name[:-4] for name in some(names)], gives=begins) >= .9

def test_the_definition_stays_first_after_reranking(chapters):
    search = NotebookSearch(index=chapters, cache=False)
    search.goes_on = False
    for name in ('word_terms', 'best', 'find_note', 'NotebookIndex.search', 'where is Hits defined'):
        hit = search(name, 3, refresh=False)[0]
        assert hit.scores['defines'] >= .8 and 'rerank' in hit.scores, name

def test_other_modes_and_plain_questions_stay_as_they_were(chapters):
    for query,mode in (('find_notebooks', 'bm25'), ('find_notebooks', 'dense'), ('how to search a folder of notebooks', 'hybrid')):
        assert not any('defines' in hit.scores for hit in chapters.search(query, 20, mode, refresh=False))

def test_a_filter_holds_for_definitions_too(chapters):
    hits = chapters.search('find_notebooks', 5, refresh=False, glob='02_index.ipynb')
    assert hits and all(hit.path.endswith('02_index.ipynb') for hit in hits)

# Other languages, and odd texts

def code(path, *cells, language='python'):
    cells = [dict(id=f'c{i}', cell_type='code', metadata={}, source=text, outputs=[], execution_count=None)
             for i,text in enumerate(cells)]
    about = dict(language_info=dict(name=language))
    path.write_text(json.dumps(dict(cells=cells, metadata=about, nbformat=4, nbformat_minor=5)))

definitions = dict(
    r=('read_shelf', 'read_shelf <- function(path) {\n  read.csv(path)\n}'), julia=('area', 'function area(r)\n  pi*r^2\nend'),
    rust=('Shelf', 'pub struct Shelf {\n  size: u32,\n}'), javascript=('fetchAll', 'export async function fetchAll(url) {\n}'),
    python=('max_books', 'max_books:int = 5'))

@pytest.mark.parametrize('language', definitions)
def test_a_definition_in_any_language_stands_before_its_uses(tmp_path, encoder, language):
    name,text = definitions[language]
    code(tmp_path/'uses.ipynb', *[f'# {name} and {name}\n' + f'{name}({i})\n'*3 for i in range(30)], language=language)
    code(tmp_path/'home.ipynb', f'{text}\nprint("many other words that stand below what is defined")', language=language)
    with opened(tmp_path, encoder, ':memory:') as index:
        assert index.search(name, 1)[0].path.endswith('home.ipynb')

def test_a_definition_is_found_among_more_uses_than_are_read(tmp_path, encoder):
    write(tmp_path/'a.ipynb', [f'we call load here {i} load load' for i in range(600)])
    code(tmp_path/'b.ipynb', 'def load(path):\n    return open(path).read()')
    with opened(tmp_path, encoder, ':memory:') as index:
        index.update()
        assert len(index.definition_passages('load', alone=True)) <= 501
        assert index.search('load', 1)[0].path.endswith('b.ipynb')

@pytest.mark.parametrize('text', ['', '\0', 'def', 'def f(', '@'*5000, '@a\n'*5000, '('*5000, 'x = '*5000, 'f('*3000 + ')'*3000, '\ud800 = 1',
                                  'class class class:', '-'*9000 + '1', 'a,'*9000 + '= 1', '    '*9000 + 'def f(): 1', 'if 1:\n'*500])
def test_no_text_is_too_odd_or_slow(text):
    start = time.perf_counter()
    defined(text); names_in(text); definition_phrases('x')
    assert time.perf_counter()-start < 5

def test_a_pasted_text_asks_for_twenty_names_at_most():
    assert len(names_in(' '.join(f'read_{i}(file_{i})' for i in range(20_000)))[0]) == 20

# Other people's notebooks

@pytest.mark.skipif(not (data/'bulk.tar.gz').exists(), reason='the large collection is not at hand')
def test_names_of_real_notebooks_lead_to_their_definitions(tmp_path):
    with tarfile.open(data/'bulk.tar.gz') as tar:
        members = [member for member in tar if member.name.endswith('.ipynb')][::8]
        tar.extractall(tmp_path/'nbs', members, filter='data')
    names = set()
    for path in sorted((tmp_path/'nbs').rglob('*.ipynb')):
        try: cells = json.loads(path.read_text()).get('cells', [])
        except ValueError: continue
        text = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code')
        names.update(re.findall(r'^(?:def|class) (\w+)', text, re.M))
    chosen = some(sorted(names), 300)
    with opened(tmp_path/'nbs', Encoder(), tmp_path/'real.db') as index:
        index.update(encode=False)
        assert share(index, chosen) >= .95

@pytest.mark.parametrize('name', ['dev', 'dev-science', 'dev-holoviews'])
def test_judged_questions_lose_nothing(tmp_path, name):
    if not (data/name).exists(): pytest.skip('the judged collections are not at hand')
    queries = load_queries(data/name/'queries.jsonl')
    rels = {query['qid']: query['rels'] for query in queries}
    def ndcg(index):
        runs = {qid: notebook_run(index.search(text, 200, refresh=False), rels[qid])
                for qid,text in zip(queries.attrgot('qid'), queries.attrgot('query'))}
        return np.mean([row['nDCG@10'] for row in score_runs(runs, rels, ['nDCG@10']).values()])
    class Plain(NotebookIndex):
        def definition_scores(self, query): return np.zeros(len(self.load().ids))
    with opened(data/name/'nbs', Encoder(), tmp_path/'i.db') as index:
        index.update(encode=False)
        assert ndcg(index) >= ndcg(Plain(data/name/'nbs', index.encoder, tmp_path/'i.db'))
