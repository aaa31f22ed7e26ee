"What comes in from outside besides notebooks: queries, sets of queries, weights; made up by the thousand."
import json, os, pickle, random, re, shutil, unicodedata, warnings
from collections import Counter
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file
from helpers import content, make_notebooks, modes, opened, soak, words, write
from semsearch.table import load_table, weights
from semsearch.compare import QuerySetError, load_queries
from semsearch.core import printable
from semsearch.encoder import ModelError, load_encoder, load_model
from semsearch.index import phrases
from semsearch.store import word_terms
from semsearch.passages import embedded_folder
from semsearch.reader import load_cross_encoder, load_reader
from test_loader import swap, unprintable

# Queries

every_script = [chr(code) for code in range(0x20000) if unicodedata.category(chr(code)) not in ('Cs', 'Cn', 'Co')]
operators = '''" ' "" ( ) * ^ : + - NEAR NEAR( NEAR/5 AND OR NOT { } text: text :text -- ; /* */ % _ \\ `'''.split()
attacks = ["'; drop table passages; --", "' or 1=1 --", '" or "a"*', 'NEAR("sort" "list", 5)', 'text : sort', '{text rowid} : x', 'sort*',
           "') union select * from info --", '^sort', 'sort AND', 'OR OR OR', '"unclosed', '%s%n{0}{x}', '$(rm x)', '../../etc/passwd',
           '\x1b]0;owned\x07', '\x00sort\x00', '\ud800', 'sort\udfff', '\x9b31m', '\u202esort', '\ufeff', '\u200b', 'İstanbul ſort ﬁle']

def made_up(rng):
    "A query that nobody would type, or would type on purpose"
    def part():
        kind = rng.randrange(6)
        if kind == 0: return rng.choice(words)
        if kind == 1: return rng.choice(operators)
        if kind == 2: return rng.choice(attacks)
        if kind == 3: return ''.join(rng.choices(every_script, k=rng.randrange(1, 8)))
        if kind == 4: return ''.join(chr(rng.randrange(32)) for _ in range(rng.randrange(1, 4)))
        return chr(rng.choice([rng.randrange(0x110000), rng.randrange(0x300)]))*rng.choice([1, 1, 1, 50])
    return rng.choice(['', ' ', ' ', '\n']).join(part() for _ in range(rng.randrange(1, 7)))

@pytest.fixture(scope='module')
def small(tmp_path_factory, encoder):
    place = tmp_path_factory.mktemp('small')
    folder = make_notebooks(place/'nbs', 4, 6)
    write(folder/'odd.ipynb', ['sort NEAR pizza', 'and or not', 'İstanbul ſort ﬁle', 'поиск 検索 חיפוש', 'snake_case CamelCase'])
    with opened(folder, encoder, place/'i.db') as index: index.update(); yield index

def check_answer(index, query, mode, top_k=8):
    "Hits in order, scores in range, nothing that a terminal would obey; None if there is nothing to ask"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that a query is long
        try: hits = index.search(query, top_k, mode, refresh=False)
        except ValueError as error: assert not printable(query).strip() and 'empty' in str(error); return None
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and all(0 < score <= 1.001 for score in scores)
    assert not unprintable.search(repr(hits)) and json.loads(hits.to_json()) == hits.rows()
    return [(hit.path, hit.cell_index) for hit in hits]

def due(index, query):
    "Where the rarer plain words of a query stand, found without any index"
    rows = list(index.db.execute('select path,cell_index,title,headings,text from passages'))
    known = [(path, at, set(word_terms(' '.join([title, *json.loads(heads), text])))) for path,at,title,heads,text in rows]
    wanted = {term for term in word_terms(query) if term.isascii()}
    wanted = {term for term in wanted if sum(term in terms for _,_,terms in known) < len(known)/3}
    return {(path, at) for path,at,terms in known if terms & wanted}

@pytest.mark.parametrize('start', range(20) if soak else [0])
def test_no_query_is_more_than_words(small, start):
    rng,before,done = random.Random(start),content(small.file),Counter()
    for i in range(10_000 if soak else 1000):
        query,mode = made_up(rng),'bm25' if i % 10 else rng.choice(modes)
        found = check_answer(small, query, mode)
        done[mode if found is not None else 'blank'] += 1
        if found is None or i % 5 != 1 or phrases(query): continue  # a phrase narrows: tests/test_notes.py
        everything = check_answer(small, query, 'bm25', 100)
        assert due(small, query) <= set(everything), query
        if parts := re.findall(r'\w+', printable(query)): assert everything == check_answer(small, ' '.join(parts), 'bm25', 100), query
    assert content(small.file) == before
    print(f'{sum(done.values())} queries: {dict(done)}')

long_ones = [' '.join(map(str, range(150_000))), 'AND NEAR(* '*90_000, 'sort '*200_000, 'x'*1_000_000, '"'*1_000_000, '表'*333_333,
             '\U0001f600 '*200_000, ''.join(every_script)]

@pytest.mark.parametrize('query', long_ones if soak else long_ones[:2])
def test_a_query_of_a_megabyte_is_answered(small, query):
    for mode in modes if soak else ['hybrid']: assert check_answer(small, query, mode) is not None

def test_a_query_in_every_script_finds_its_words(small, tmp_path, encoder):
    scripts = {}
    for char in every_script:
        if char.isalpha(): scripts.setdefault(unicodedata.name(char, 'UNNAMED').split()[0], []).append(char)
    scripts = {name: ''.join(chars[:5]) for name,chars in scripts.items() if len(chars) > 4}
    (tmp_path/'nbs').mkdir()
    for i,word in enumerate(scripts.values()): write(tmp_path/f'nbs/n{i:03}.ipynb', [f'a {word} b'])
    assert len(scripts) > 100
    with opened(tmp_path/'nbs', encoder, tmp_path/'i.db') as index:
        index.update()
        missed = [name for i,(name,word) in enumerate(scripts.items())
                  if f'n{i:03}.ipynb' not in {Path(hit.path).name for hit in index.search(word, 200, 'bm25', refresh=False)}]
    print(f'{len(scripts)} scripts; not found by their words: {missed}')
    assert not missed

# Sets of queries

row = dict(qid='q1', query='sort a list', rels={'lists.ipynb': 2}, best_cells={'lists.ipynb': 3}, type='keyword')

def damaged_set(rng):
    "The bytes of a query set that somebody edited by hand, or not by hand"
    rows = [json.dumps(dict(row, qid=f'q{i}')) for i in range(3)]
    kind,at = rng.randrange(5),rng.randrange(3)
    if kind == 0: rows[at] = json.dumps(swap(row, rng))
    if kind == 1: rows[at] = rng.choice(['', '{', '[]', 'null', '"x"', '7', '{}', '['*20_000, '\ufeff{}', 'NaN', rows[(at+1)%3], '1'*5000])
    data = bytearray('\n'.join(rows).encode('utf-8', 'surrogatepass'))
    if kind == 2: data = data[:rng.randrange(len(data))]
    if kind == 3:
        for _ in range(rng.randrange(1, 20)): data[rng.randrange(len(data))] = rng.randrange(256)
    if kind == 4: data = rng.choice([b'\xff\xfe', b'\xef\xbb\xbf', b'\0']) + data
    return bytes(data)

def test_a_query_set_is_read_or_its_fault_is_named(tmp_path):
    rng,file,done = random.Random(11),tmp_path/'q.jsonl',Counter()
    for _ in range(20_000 if soak else 1000):
        file.write_bytes(damaged_set(rng))
        try: queries = load_queries(file)
        except QuerySetError as error: assert str(file) in str(error) and not unprintable.search(str(error)), error; done['named'] += 1
        else:
            assert all(set(query['rels'].values()) <= {0, 1, 2} for query in queries) and len({query['qid'] for query in queries}) == len(queries)
            done['read'] += 1
    print(f'{sum(done.values())} query sets: {dict(done)}')
    assert min(done['read'], done['named']) > 50

# Weights

class Trap:
    "A pickle that leaves a mark when it is read"
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return os.mkdir, (str(self.mark),)

def spoiled(source, folder, how, name='*.safetensors'):
    "A copy of a model whose weights somebody touched"
    source = Path(source)
    shutil.copytree(source, folder)
    weights = next(folder.glob(name))
    data = weights.read_bytes()
    if how == 'cut': weights.write_bytes(data[:len(data)//2])
    if how == 'empty': weights.write_bytes(b'')
    if how == 'flipped': weights.write_bytes(data[:-1] + bytes([data[-1]^1]))
    if how == 'huge header': weights.write_bytes((1<<62).to_bytes(8, 'little') + data[8:])
    if how == 'pickle': weights.write_bytes(pickle.dumps(Trap(folder/'ran')))
    if how == 'pickle instead':
        weights.unlink()
        for name in ('pytorch_model.bin', 'model.pt', 'model.pkl', f'{weights.name}.bin'): (folder/name).write_bytes(pickle.dumps(Trap(folder/'ran')))
    if how == 'missing': weights.unlink()
    if how == 'harmless pickle':
        weights.unlink()
        torch.save(load_file(source/weights.name), folder/'pytorch_model.bin')
    return folder

hows = ['cut', 'empty', 'huge header', 'pickle', 'pickle instead', 'harmless pickle', 'missing']

@pytest.mark.parametrize('how', hows)
def test_weights_that_are_not_safetensors_are_named_and_never_unpickled(tmp_path, model, how):
    folder = spoiled(model, tmp_path/'m', how)
    for load in (load_encoder, load_cross_encoder):
        with pytest.raises(ModelError, match=str(folder)): load(str(folder))
    assert not (folder/'ran').exists()

def with_pickled_part(model, folder):
    "A copy of a model that ends in a Dense layer, whose weights are a trap"
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense
    whole = SentenceTransformer(model, device='cpu')
    whole.append(Dense(32, 8)); whole.save(str(folder))
    weights, = folder.glob('*_Dense/model.safetensors')
    weights.unlink()
    weights.with_name('pytorch_model.bin').write_bytes(pickle.dumps(Trap(folder/'ran')))
    return weights

@pytest.mark.parametrize('kind', ['SentenceTransformer', 'CrossEncoder', 'MultiVectorEncoder'])
@pytest.mark.parametrize('cached', [False, True])
def test_a_pickle_in_any_part_of_a_model_is_refused(tmp_path, monkeypatch, model, kind, cached):
    "In a folder, and where the hub's client keeps what it fetched"
    import sentence_transformers
    place = tmp_path/'models--some--model'
    folder = place/'snapshots'/('0'*40)
    with_pickled_part(model, folder)
    (place/'refs').mkdir(); (place/'refs'/'main').write_text('0'*40)
    monkeypatch.setenv('SENTENCE_TRANSFORMERS_HOME', str(tmp_path))
    name = 'some/model' if cached else folder
    with pytest.raises(ModelError, match='Pickled weights could run code'): load_model(getattr(sentence_transformers, kind), name)
    assert not (folder/'ran').exists()

def test_a_part_with_a_pickle_beside_its_safetensors_is_read_from_these(tmp_path, model):
    weights = with_pickled_part(model, tmp_path/'m')
    from safetensors.torch import save_file
    save_file({'linear.weight': torch.ones(8, 32), 'linear.bias': torch.zeros(8)}, weights)
    assert load_encoder(tmp_path/'m', 'cpu').get_embedding_dimension() == 8 and not (tmp_path/'m'/'ran').exists()

@pytest.mark.parametrize('how', [*hows, 'flipped'])
def test_weights_that_come_with_us_are_the_published_ones(tmp_path, monkeypatch, how):
    "One bit is enough"
    for name,load in (('reader', load_reader), ('table', load_table)):
        folder = spoiled(weights, tmp_path/name, how, f'{name}.safetensors')
        with pytest.raises(ModelError, match=str(folder)): load(folder)
        assert not (folder/'ran').exists()
    embedded = spoiled(embedded_folder(), tmp_path/'embedded', how)
    monkeypatch.setattr('semsearch.encoder.embedded_folder', lambda: embedded)
    with pytest.raises((ValueError, OSError), match=str(embedded)): load_encoder()
    assert not (embedded/'ran').exists()

def test_a_model_of_code_is_refused(tmp_path, model):
    "A folder that asks for its own code to be run"
    folder = tmp_path/'m'; shutil.copytree(model, folder)
    (folder/'evil.py').write_text(f'import os; os.mkdir({str(folder/"ran")!r})\nclass Model: pass\n')
    config = json.loads((folder/'config.json').read_text())
    names = {name: 'evil.Model' for name in ('AutoConfig', 'AutoModel', 'AutoModelForSequenceClassification')}
    (folder/'config.json').write_text(json.dumps(dict(config, auto_map=names, model_type='evil')))
    (folder/'modules.json').write_text(json.dumps([dict(idx=0, name='0', path='', type='evil.Model')]))
    for load in (load_encoder, load_cross_encoder):
        with pytest.raises(ModelError, match=str(folder)): load(str(folder))
    assert not (folder/'ran').exists()
