"What an index promises wherever it is kept: in SQLite, in Milvus, and on the way from one to the other."
import json, os, random, resource, signal, socket, subprocess, sys, threading, time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
import numpy as np, pytest
from helpers import make_notebooks, prose, write
from semsearch.cli import app
from semsearch.encoder import ModelError
from semsearch.index import NotebookIndex
from semsearch.search import NotebookSearch
from semsearch.store import IndexFileError
from typer.testing import CliRunner

pytest.importorskip('pymilvus', reason='needs the extra scale'); pytest.importorskip('milvus_lite')
from semsearch.corpus import encode_corpus, saved_again, export_index, import_index
from semsearch.milvus import ServerError, connect
from semsearch.scale import MilvusIndex

needs_ray = pytest.mark.skipif(not find_spec('ray'), reason='Ray is not installed')
kinds = 'sqlite','milvus'

def make(kind, folder, encoder, place, **kwargs):
    "An index of one kind; the same place again is the same index again"
    if kind == 'sqlite': return NotebookIndex(folder, encoder, f'{place}.sqlite', **kwargs)
    return MilvusIndex(f'{place}.db', paths=folder, model=encoder, index_type='FLAT', **kwargs)

def key(hit): return hit.path,hit.cell_index,hit.text

def held(index):
    "All that an index holds, in a form that can be compared"
    def numbers(one): return np.array(one.vectors, np.float32).round(3).tolist()
    def row(one): return one.path,one.digest,one.error and tuple(one.error),one.passages,numbers(one)
    return list(map(row, index.contents()))

@pytest.fixture(params=kinds)
def kind(request): return request.param

@pytest.fixture
def folder(tmp_path):
    folder = tmp_path/'nbs'; folder.mkdir()
    write(folder/'lists.ipynb', ['sort a list', 'order the web by price', 'long '*200])
    write(folder/'cities.ipynb', ['find a city', 'sort a list', 'plot the weather of a week'])
    return folder

@pytest.fixture
def index(kind, folder, encoder, tmp_path):
    index = make(kind, folder, encoder, tmp_path/'i')
    index.update()
    return index

def counts(report): return report.added,report.changed,report.removed,report.unchanged,report.skipped

# One suite, two back ends

def test_a_quoted_phrase_is_in_every_hit_and_what_is_nowhere_is_said(index):
    hits = index.search('"sort a  LIST" by price', refresh=False)
    assert len(hits) == 2 and hits.notes == [] and all('sort a list' in hit.text for hit in hits)
    assert len(index.search('"sort a list"', refresh=False, glob='cities*')) == 1
    said = index.search('"list a sort" with read_csv', refresh=False)
    assert said.notes == ['no passage contains "list a sort"', "no notebook contains 'read_csv'"] and len(said) > 2

def test_an_update_tells_what_it_did_and_a_second_one_does_nothing(kind, folder, encoder, tmp_path):
    index = make(kind, folder, encoder, tmp_path/'i')
    first,again = index.update(),index.update()
    passages = index.status().passages
    texts = {passage.hash for one in index.contents() for passage in one.passages}
    assert counts(first) == (2, 0, 0, 0, 0) and first.encoded == len(texts)
    assert counts(again) == (0, 0, 0, 2, 0) and again.encoded == 0 and index.status().passages == passages > 5

def test_changes_deletions_and_new_names_are_followed(index, folder):
    write(folder/'lists.ipynb', ['sort a list', 'something new'])
    report = index.update()
    assert counts(report) == (0, 1, 0, 1, 0) and report.encoded == 1
    (folder/'lists.ipynb').rename(folder/'other.ipynb')
    report = index.update()
    assert counts(report) == (1, 0, 1, 1, 0)
    (folder/'cities.ipynb').unlink()
    assert counts(index.update()) == (0, 0, 1, 1, 0)
    assert {hit.path for hit in index.search('a list', 20)} == {str(folder/'other.ipynb')}
    assert index.status().notebooks == 1 and [Path(one.path).name for one in index.contents()] == ['other.ipynb']

def test_a_notebook_that_was_only_touched_is_not_read(index, folder):
    before = held(index)
    os.utime(folder/'lists.ipynb', ns=(10**18, 10**18))
    assert counts(index.update()) == (0, 0, 0, 2, 0) and held(index) == before
    assert not index.changes().stale

def test_a_broken_notebook_is_named_until_it_is_mended(index, folder):
    (folder/'broken.ipynb').write_text('{')
    report = index.update()
    assert counts(report) == (1, 0, 0, 2, 1) and report.errors == index.status().errors
    assert report.errors[0][0].endswith('broken.ipynb') and 'JSON' in report.errors[0][1]
    assert not index.holds(str(folder/'broken.ipynb')) and index.holds(str(folder/'lists.ipynb'))
    write(folder/'broken.ipynb', ['sort a list'])
    assert counts(index.update()) == (0, 1, 0, 2, 0)

@pytest.mark.parametrize('mode', ['dense', 'bm25', 'hybrid'])
def test_hits_have_scores_parts_and_an_order(index, mode):
    hits = index.search('sort a list', 4, mode)
    assert hits.attrgot('rank') == list(range(1, len(hits)+1)) and len(hits) >= 2
    assert hits.attrgot('score') == sorted(hits.attrgot('score'), reverse=True)
    assert all(0 < hit.score <= 1 and all(0 <= part <= 1 for part in hit.scores.values()) for hit in hits)
    assert set(hits[0].scores) - {'notebook'} == ({'dense', 'bm25'} if mode == 'hybrid' else {mode})  # Milvus has no notebook
    if mode != 'dense': assert all('sort a list' in hit.text for hit in hits[:2])

def test_filters_leave_only_what_meets_them(index, folder):
    cells = [dict(id='x0', cell_type='code', metadata={}, source='#| export\nsort_list(a) = sort(a)',
                  outputs=[]),
             dict(id='x1', cell_type='code', metadata={}, source='1/0 # sort', outputs=[
                 dict(output_type='error', ename='ZeroDivisionError', evalue='', traceback=[])])]
    (folder/'code.ipynb').write_text(json.dumps(dict(cells=cells, nbformat=4, nbformat_minor=5,
                                     metadata=dict(kernelspec=dict(name='julia', language='julia', display_name='')))))
    old = folder/'cities.ipynb'
    os.utime(old, ns=(10**18, 10**18)) # in 2001
    index.update()
    def paths(**filters):
        return {Path(hit.path).name for hit in index.search('sort a list', 50, refresh=False, **filters)}
    assert paths() == {'lists.ipynb', 'cities.ipynb', 'code.ipynb'}
    assert paths(glob='lists*') == {'lists.ipynb'} and paths(glob='!lists*') == {'cities.ipynb', 'code.ipynb'}
    assert paths(cell_type='code') == {'code.ipynb'} and 'code.ipynb' not in paths(cell_type='markdown')
    assert paths(language='Julia') == {'code.ipynb'} and paths(language='python') == {'lists.ipynb', 'cities.ipynb'}
    assert paths(exported=True) == {'code.ipynb'} and 'lists.ipynb' in paths(exported=False)
    assert paths(error=True) == paths(error='ZeroDivisionError') == {'code.ipynb'} and paths(error='KeyError') == set()
    assert paths(since='2010-01-01') == {'lists.ipynb', 'code.ipynb'}
    assert paths(glob='c*', cell_type='markdown') == {'cities.ipynb'}
    with pytest.raises(ValueError): paths(cell_type='prose')

def test_queries_that_make_no_sense_are_refused(index):
    for query,top_k,mode in ((' ', 3, 'hybrid'), ('x', 0, 'hybrid'), ('x', 3, 'fuzzy')):
        with pytest.raises(ValueError): index.search(query, top_k, mode)
    assert index.search('zzzqqq', mode='bm25') == []
    assert len(index.search('sort a list', 10**6)) <= index.status().passages

odd = '"', "a' or tenant != 'b", '] == 1', 'NEAR(a b)', '日本語 ß é', '\x00', 'AND OR NOT', '*'

@pytest.mark.parametrize('query', odd)
def test_no_query_is_taken_for_a_language(index, query):
    for mode in ('dense', 'bm25', 'hybrid'): index.search('x'+query, 3, mode, refresh=False)

def test_what_is_like_a_cell_and_around_it(index, folder):
    hit = index.search('sort a list', 1)[0]
    like = index.similar(hit.path, hit.cell_id, 3)
    assert len(like) == 3 and key(hit) not in like.map(key)
    assert 'sort a list' in like[0].text and like[0].score > .9
    with pytest.raises(KeyError): index.similar(hit.path, 'no"such')
    one = next(index.contents()).passages
    before,after = index.neighbours(one[1])
    assert (before.attrgot('text'), after.attrgot('text')) == ([one[0].text], [one[2].text])
    assert index.neighbours(one[0])[0] == [] and index.last_cell(one[0].path, one[0].cell_id) == one[0].cell_end
    assert index.row_of(one[1])-index.row_of(one[0]) == 1
    (folder/'cities.ipynb').unlink(); index.update()
    assert index.neighbours(one[1]) == ([], [])

def test_another_model_or_another_cut_is_refused(index, kind, folder, tmp_path):
    with pytest.raises(IndexFileError, match='another model'): make(kind, folder, None, tmp_path/'i')
    with pytest.raises(IndexFileError, match='max_tokens'):
        make(kind, folder, index.encoder, tmp_path/'i', max_tokens=50)
    with pytest.raises(FileNotFoundError): make(kind, folder/'nowhere', index.encoder, tmp_path/'i')

def test_the_second_stage_and_a_prompt_take_any_index(index):
    notebooks = NotebookSearch(index=index, cache=False, ranker=Lengths())
    hits = notebooks('sort a list', 3)
    assert len(hits) == 3 and 'rerank' in hits[0].scores
    assert len(notebooks.context('sort a list', 3).passages) >= 1

class Lengths:
    "A ranker that likes short texts"
    def predict(self, pairs): return np.array([1/len(text) for _,text in pairs])
    def rank(self, query, documents, **kwargs): raise NotImplementedError

# Both agree, whatever happens to the folder

def test_any_order_of_edits_ends_in_the_same_passages_and_answers(tmp_path, encoder):
    rng,folder = random.Random(5),make_notebooks(tmp_path/'nbs', 4, 3)
    both = [make(kind, folder, encoder, tmp_path/'i') for kind in kinds]
    for step in range(12):
        there = sorted(folder.glob('*.ipynb'))
        path,what = rng.choice(there),rng.choice(['new', 'change', 'delete', 'move', 'break', 'touch'])
        if what == 'new': write(folder/f'new{step}.ipynb', [prose(rng), 'sort a list'])
        elif what == 'change': write(path, [prose(rng) for _ in range(rng.randrange(4))])
        elif what == 'delete' and len(there) > 1: path.unlink()
        elif what == 'move': path.rename(folder/f'moved{step}.ipynb')
        elif what == 'break': path.write_text('[' + 'x'*step)
        else: os.utime(path, ns=(step, step*10**9))
        reports = [counts(index.update()) for index in both]
        assert reports[0] == reports[1] and held(both[0]) == held(both[1])
    found = [[index.search(query, 10, 'dense', refresh=False) for index in both]
             for query in ('how to sort a list', 'web search', 'model')]
    for local,milvus in found:
        assert local.map(key) == milvus.map(key)
        np.testing.assert_allclose(local.attrgot('score'), milvus.attrgot('score'), atol=1e-5)

@pytest.mark.parametrize('way', [(a, b) for a in kinds for b in kinds], ids='-'.join)
def test_an_index_moves_without_encoding(way, folder, encoder, tmp_path):
    (folder/'broken.ipynb').write_text('{')
    old,new = [make(kind, folder, encoder, tmp_path/name) for kind,name in zip(way, 'ab')]
    old.update()
    assert export_index(old, tmp_path/'house.parquet') == import_index(new, tmp_path/'house.parquet') == 3
    report = new.update()
    assert counts(report) == (0, 0, 0, 3, 1) and report.encoded == 0 and held(new) == held(old)

def test_folders_that_share_a_collection_do_not_see_each_other(folder, encoder, tmp_path):
    mine = make('milvus', folder, encoder, tmp_path/'i')
    theirs = make('milvus', folder/'lists.ipynb', encoder, tmp_path/'i')
    assert mine.update().encoded and theirs.update().encoded == 0
    assert {hit.path for hit in theirs.search('find a city', 20)} == {str(folder/'lists.ipynb')}
    (folder/'lists.ipynb').unlink()
    mine.update()
    assert theirs.status().notebooks == 1 and mine.status().notebooks == 1

# Servers: a real one, in a process of its own

serving = ('import sys; from milvus_lite.adapter.grpc.server import run_server; '
           'run_server(sys.argv[1], port=int(sys.argv[2]))')

def free_port():
    with closing(socket.create_server(('127.0.0.1', 0))) as one: return one.getsockname()[1]

class Server:
    def __init__(self, place, **limits): self.place,self.port = str(place),free_port(); self.start(**limits)
    @property
    def uri(self): return f'http://127.0.0.1:{self.port}'
    def start(self, most_bytes=None):
        def limit():
            if most_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            if most_bytes: signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.process = subprocess.Popen([sys.executable, '-c', serving, self.place, str(self.port)], preexec_fn=limit,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait(); connect(self.uri, 30)
    def wait(self):
        for _ in range(300):
            with socket.socket() as one:
                if not one.connect_ex(('127.0.0.1', self.port)): return True
            time.sleep(.1)
    def kill(self): self.process.kill(); self.process.wait()

@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path/'served.db')
    yield server
    server.kill()

def test_a_server_that_dies_half_way_leaves_nothing_that_a_second_run_does_not_mend(server, tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs', 30, 3)
    index = MilvusIndex(server.uri, paths=folder, model=encoder, index_type='FLAT', timeout=10)
    asked,ask = [],index.ask
    def dying(what, *args, **kwargs):
        asked.append(what)
        if what == 'upsert' and kwargs.get('notebooks'): server.kill() # passages are there, the note is not
        return ask(what, *args, **kwargs)
    index.ask = dying
    start = time.monotonic()
    with pytest.raises(ServerError, match='run the same command again'): index.update()
    assert 'upsert' in asked and time.monotonic()-start < 60
    index.ask = ask
    with pytest.raises(ServerError, match='127.0.0.1'): index.search('sort a list', refresh=False)
    server.start()
    index = MilvusIndex(server.uri, paths=folder, model=encoder, index_type='FLAT', timeout=10)
    report = index.update()
    assert counts(report) == (30, 0, 0, 0, 0)
    local = make('sqlite', folder, encoder, tmp_path/'i'); local.update()
    assert held(index) == held(local) and index.status().passages == local.status().passages

def test_a_place_that_is_full_is_named_and_mended_later(tmp_path, encoder):
    folder,server = make_notebooks(tmp_path/'nbs', 30, 8),Server(tmp_path/'served.db', most_bytes=100_000)
    try:
        with pytest.raises(ServerError, match='127.0.0.1'):
            index = MilvusIndex(server.uri, paths=folder, model=encoder, index_type='FLAT', timeout=5)
            for _ in range(5): index.update(); write(folder/'n00.ipynb', [prose(random.Random(_), 3000)]*20)
        server.kill(); server.start()
        index = MilvusIndex(server.uri, paths=folder, model=encoder, index_type='FLAT', timeout=10)
        index.update()
        local = make('sqlite', folder, encoder, tmp_path/'i'); local.update()
        assert held(index) == held(local)
    finally: server.kill()

@pytest.mark.parametrize('answer', ['closed', 'silent', 'nonsense', 'another protocol'])
def test_a_place_that_is_no_server_is_named_in_bounded_time(answer):
    with closing(socket.create_server(('127.0.0.1', 0))) as one:
        port = one.getsockname()[1]
        if answer == 'closed': one.close()
        elif answer != 'silent':
            text = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi' if answer == 'another protocol' else b'\x00\xff'*50
            def reply():
                try:
                    while True: one.accept()[0].sendall(text)
                except OSError: pass
            threading.Thread(target=reply, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(ServerError, match=f'127.0.0.1:{port}'): connect(f'http://127.0.0.1:{port}', 1)
        assert time.monotonic()-start < 60

def test_a_server_that_does_not_know_a_request_is_named():
    "As Milvus Lite 2.4 and 2.5 do, and any other server that speaks gRPC"
    import grpc
    from concurrent.futures import ThreadPoolExecutor
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port('127.0.0.1:0'); server.start()
    try:
        with pytest.raises(ServerError, match='Milvus Lite 3'): connect(f'http://127.0.0.1:{port}', 10)
    finally: server.stop(0)

def test_vectors_that_are_not_numbers_are_refused_everywhere(kind, folder, model, tmp_path):
    from semsearch.corpus import EncodeTable, read_table
    from helpers import tiny_encoder
    import pyarrow as pa
    encoder = tiny_encoder(model)
    good = encoder.encode
    def encode(texts, progress=None): made = good(texts, progress); made[-1,0] = np.nan; return made
    encoder.encode = encode
    with pytest.raises(ModelError, match='not numbers'): make(kind, folder, encoder, tmp_path/'i').update()
    worker = EncodeTable(model=model, device='cpu', half=False); worker.encoder = encoder
    table = read_table(pa.table(dict(path=list(map(str, folder.glob('*.ipynb'))))), 128, encoder.tokenize)
    with pytest.raises(ValueError, match='not numbers'): worker(table)

def test_a_notebook_that_becomes_unreadable_meanwhile_is_named_and_the_others_are_encoded(kind, folder, model, encoder, tmp_path, monkeypatch):
    "The workers without Ray: after the look at the folder, files vanish, become folders, or the disk does not answer"
    import errno, pyarrow as pa
    from semsearch import corpus, notebook
    write(folder/'gone.ipynb', ['a train']); write(folder/'place.ipynb', ['a model'])
    index = make(kind, folder, encoder, tmp_path/'i'); index.update()
    def texts(): return {Path(one.path).name: [passage.text for passage in one.passages] for one in index.contents()}
    before = texts()
    for path in folder.glob('*.ipynb'): write(path, ['something else', path.stem])
    write(folder/'new.ipynb', ['sort a list'])
    read,digest = notebook.read_bytes,corpus.file_digest
    def pipeline(ray, paths, index, *args):
        (folder/'gone.ipynb').unlink(); (folder/'place.ipynb').unlink(); (folder/'place.ipynb').mkdir()
        def lost(path): return Path(path).name in ('lists.ipynb', 'new.ipynb')
        def read_bytes(path):
            if lost(path): raise OSError(errno.EIO, 'Input/output error')
            return read(path)
        monkeypatch.setattr(notebook, 'read_bytes', read_bytes)
        monkeypatch.setattr(corpus, 'file_digest', lambda path: None if lost(path) else digest(path))
        worker = corpus.EncodeTable(model=model, device='cpu', half=False)
        tables = [worker(corpus.read_table(pa.table(dict(path=[path])), index.max_tokens, encoder.tokenize)) for path in paths]
        monkeypatch.undo()
        class Data:
            def iter_batches(self, **kwargs): return iter(tables)
        return Data()
    monkeypatch.setattr(corpus, 'start_ray', lambda *args: None); monkeypatch.setattr(corpus, 'pipeline', pipeline)
    report = encode_corpus(index)
    assert report.stored == 5 and {Path(path).name for path,_ in index.errors()} == {'lists.ipynb', 'new.ipynb', 'gone.ipynb', 'place.ipynb'}
    found = texts()
    assert 'something else' in found['cities.ipynb'][0] and found['lists.ipynb'] == before['lists.ipynb'] != []
    (folder/'place.ipynb').rmdir(); index.update()
    assert index.errors() == [] and {name for name,found in texts().items() if 'something else' in str(found)} == {'lists.ipynb', 'cities.ipynb'}

def test_an_error_of_the_index_is_not_one_of_the_file(folder, encoder, tmp_path):
    index = make('sqlite', folder, encoder, tmp_path/'i'); index.update()
    export_index(index, tmp_path/'good.parquet')
    class Full(NotebookIndex):
        def put(self, notebooks): raise OSError(28, 'No space left on device')
    with pytest.raises(OSError, match='No space left'): import_index(Full(folder, encoder, tmp_path/'full.db'), tmp_path/'good.parquet')
    class Wrong(NotebookIndex):
        def put(self, notebooks): raise ValueError('what the index says')
    with pytest.raises(ValueError, match='what the index says'): import_index(Wrong(folder, encoder, tmp_path/'wrong.db'), tmp_path/'good.parquet')
    (tmp_path/'bad.parquet').write_bytes((tmp_path/'good.parquet').read_bytes()[:500])
    with pytest.raises(IndexFileError, match='is damaged'): import_index(NotebookIndex(folder, encoder, tmp_path/'bad.db'), tmp_path/'bad.parquet')
    with pytest.raises(FileNotFoundError): import_index(NotebookIndex(folder, encoder, tmp_path/'none.db'), tmp_path/'none.parquet')

# Ray

@needs_ray
def test_a_corpus_is_encoded_by_two_workers_one_of_which_dies(tmp_path, model, encoder):
    import psutil, ray
    folder = make_notebooks(tmp_path/'nbs', 40, 3)
    (folder/'broken.ipynb').write_text('{')
    class Unlucky(MilvusIndex):
        killed = None
        def put(self, notebooks):
            super().put(notebooks)
            if self.killed: return
            ours = [p for p in psutil.Process().children(recursive=True) if 'EncodeTable' in ' '.join(p.cmdline())]
            self.killed = ours[0].pid; ours[0].kill()
    index = Unlucky(str(tmp_path/'i.db'), paths=folder, model=encoder, index_type='FLAT')
    try:
        report = encode_corpus(index, workers=2, batch=2)
        assert index.killed and report.stored == 41
        local = make('sqlite', folder, encoder, tmp_path/'i'); local.update()
        assert index.status().passages == local.status().passages and counts(index.update()) == (0, 0, 0, 41, 1)
        for mine,theirs in zip(index.contents(), local.contents()):
            assert (mine.path, mine.passages) == (theirs.path, theirs.passages)
            if mine.passages: assert (np.stack(mine.vectors)*np.stack(theirs.vectors)).sum(1).min() > .999
        write(folder/'n00.ipynb', ['sort a list']); os.utime(folder/'n01.ipynb'); (folder/'n02.ipynb').unlink()
        report = encode_corpus(index, workers=1)
        assert (report.stored, report.removed) == (1, 1) and not saved_again(index.changes())[1]
    finally: ray.shutdown()

# The command line

def run(*args): return CliRunner().invoke(app, list(map(str, args)))

def test_the_command_line_takes_a_place(folder, tmp_path, monkeypatch):
    monkeypatch.setenv('SEMSEARCH_INDEX_DIR', str(tmp_path/'cache'))
    place,house = f'milvus:{tmp_path/"m.db"}',tmp_path/'house.parquet'
    done = run('export', house, folder)
    assert done.exit_code == 0 and '2 notebooks written' in done.stderr
    done = run('import', house, folder, '--index', place)
    assert done.exit_code == 0 and '2 notebooks put into' in done.stderr
    done = run('sort a list', folder, '--index', place, '-k', 1, '--no-rerank', '--json')
    assert done.exit_code == 0 and not done.stderr and 'sort' in json.loads(done.stdout)[0]['text']
    done = run('doctor', folder, '--index', place)
    assert done.exit_code == 0 and 'passages' in done.stdout.splitlines()[-1]
    assert 'Removed' in run('clear', folder, '--index', place).stderr
    done = run('x', folder, '--index', f'milvus:http://127.0.0.1:{free_port()}')
    assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 1

def test_without_the_extra_the_message_names_it(tmp_path):
    program = '''
import sys
for name in ('pymilvus', 'milvus_lite', 'ray', 'pyarrow'): sys.modules[name] = None
import semsearch, semsearch.index, semsearch.search, semsearch.milvus, semsearch.scale, semsearch.corpus, semsearch.cli
from semsearch.corpus import columns, start_ray
from semsearch.milvus import connect
for step in (lambda: connect('a.db'), lambda: start_ray(1), columns):
    try: step()
    except ImportError as error: print('semsearch[scale]' in str(error))
'''
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ['True']*3, done.stderr
