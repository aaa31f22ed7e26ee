"Static vectors first: two kinds in one index, who encodes the rest, and that nothing is encoded twice."
import json, os, random, shutil, signal, subprocess, sys, time
from contextlib import closing, suppress
from pathlib import Path
import apsw, numpy as np, psutil, pytest
from helpers import Remembering, answers, asked, check_same, content, fresh_content, make_notebooks, opened, prose, soak, write
from semsearch.behind import alone, behind_of, last_words, leaving_word, start_worker, trouble_file, work
from semsearch.encoder import Encoder
from semsearch.index import NotebookIndex
from semsearch.search import NotebookSearch, looked_at
from semsearch.shelf import remove_index, shelf
from semsearch.store import IndexFileError, format_version, real, static
from test_index import mounted, read_only

data = Path(os.environ.get('SEMSEARCH_DATA', Path(__file__).parent.parent.parent/'shared/data'))
root = Path(__file__).parent.parent

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv('SEMSEARCH_INDEX_DIR', str(tmp_path/'cache'))

@pytest.fixture(scope='module')
def minilm():
    encoder = Remembering()
    encoder.full
    return encoder

@pytest.fixture
def folder(tmp_path): return make_notebooks(tmp_path/'nbs', 4, 12)

def ranking(index, mode='hybrid'):
    "Every passage with its score, best first"
    return [(hit.path, hit.cell_index, hit.text, hit.score) for hit in index.search(asked, 10**6, mode, refresh=False)]

def same_ranking(mine, theirs, eps):
    "The same passages with the same scores, in the same order but for those within rounding"
    scores = {row[:3]: row[3] for row in theirs}
    assert len(scores) == len(theirs) == len(mine)
    found = np.array([scores[row[:3]] for row in mine])
    np.testing.assert_allclose([row[3] for row in mine], found, atol=eps)
    assert (np.diff(found) <= 2*eps).all()

# Two kinds of vectors

def test_a_folder_is_searchable_once_it_is_read(tmp_path, folder, minilm):
    with opened(folder, Encoder(), tmp_path/'i.db') as index:
        report = index.update(encode=False)
        status = index.status()
        assert (report.read, report.encoded, status.encoded) == (status.passages, 0, 0)
        assert set(index.load().kinds) == {static} and index.encoded() == 0
        hits = index.search('how do I put a list in order', 5, refresh=False)
        assert hits.encoded == 0 and set(hits[0].scores) == {'dense', 'bm25', 'notebook'} and hits.rows()[0]['encoded'] == 0
        assert 'encoded 0%' in hits._repr_html_()
        assert index.encode() == len(set(index.load().ids)) - (status.passages-index.db.execute('select count(*) from vectors').get)
        hits = index.search('how do I put a list in order', 5, refresh=False)
        assert hits.encoded == 1 and 'encoded' not in hits.rows()[0] and 'encoded' not in hits._repr_html_()

@pytest.mark.parametrize('name', ['dev', 'dev-science', 'dev-holoviews'])
def test_once_all_is_encoded_the_answers_are_those_of_an_index_encoded_at_once(tmp_path, minilm, name):
    if not (data/name).exists(): pytest.skip('the judged collections are not at hand')
    if name != 'dev' and not soak: pytest.skip('takes minutes; set SEMSEARCH_SOAK')
    with opened(data/name/'nbs', Encoder(), tmp_path/'a.db') as steps, opened(data/name/'nbs', Encoder(), tmp_path/'b.db') as once:
        steps.update(encode=False)
        search = NotebookSearch(index=steps, cache=False)
        search.goes_on = False
        for query in ('how to sort a list', 'read a file', 'plot'): search(query, refresh=False, candidates=30)
        assert 0 < steps.status().encoded < steps.status().passages
        steps.encode()
        once.update()
        for mode in ('hybrid', 'dense'): same_ranking(ranking(steps, mode), ranking(once, mode), 5e-3)
        assert ranking(steps, 'bm25') == ranking(once, 'bm25')

def test_what_the_second_stage_reads_is_encoded_for_good(tmp_path, folder):
    with opened(folder, Encoder(), tmp_path/'i.db') as index:
        index.update(encode=False)
        search = NotebookSearch(index=index, cache=False)
        search.goes_on = False
        hits = index.search(asked, 5, refresh=False)
        search.rerank(asked, hits); search.learn(hits, read=True)
        read = {hit.hash for hit in hits}
        assert {key for key, in index.db.execute('select hash from vectors where real')} == read
        own = index.encoder.encode([hit.embed_text for hit in hits])
        kept = [np.frombuffer(index.db.execute('select vector from vectors where hash=?', (hit.hash,)).get, np.float16) for hit in hits]
        assert (np.sum(own*np.array(kept, np.float32), axis=1) > .995).all()
        assert index.status().encoded == sum(index.load().kinds == real)

def test_a_search_encodes_what_comes_first_and_looks_again(tmp_path, large):
    with opened(large, Encoder(), tmp_path/'i.db') as index:
        index.update(encode=False)
        search = NotebookSearch(index=index, cache=False)
        search.goes_on = False
        first = index.search(asked, looked_at, refresh=False)
        hits = search(asked, 10, candidates=10, refresh=False)
        assert {hit.hash for hit in first} <= {key for key, in index.db.execute('select hash from vectors where real')}
        assert 0 < index.encoded() < 1
        again = {hit.hash: hit.scores['dense'] for hit in index.search(asked, 10, refresh=False)}
        assert {hit.hash for hit in hits} == again.keys()  # the candidates of the second look

def test_what_was_looked_through_is_encoded_next_and_then_the_newest(tmp_path, folder):
    for i in range(4): os.utime(folder/f'n{i:02}.ipynb', (1e9+i, 1e9+i))
    with opened(folder, Encoder(), tmp_path/'i.db') as index:
        index.update(encode=False)
        search = NotebookSearch(index=index, cache=False)
        search.goes_on = False
        hits = search(asked, 3, rerank=False, refresh=False)
        assert set(index.waiting()) == {hit.hash for hit in hits}
        index.encode_some(index.waiting())
        first = index.db.execute('select path from passages where hash=?', (index.waiting(1)[0],)).get
        assert first.endswith('n03.ipynb')

def test_static_scores_are_on_the_scale_of_real_ones(tmp_path, minilm):
    "The line that was fitted brings static cosines nearer to the real ones than they are by themselves"
    folder = tmp_path/'nbs'; folder.mkdir()
    for name in ('00_core', '01_loader', '02b_cache'): shutil.copy(root/f'nbs/{name}.ipynb', folder)
    with opened(folder, minilm, tmp_path/'i.db') as index:
        index.update(encode=False)
        queries = ['links that lead out of the folder', 'what is remembered between two searches', 'broken notebooks', 'score of a hit']
        rough = [(index.load().matrix @ minilm.encode_query(query)).clip(0, 1) for query in queries]
        fitted = [index.dense_scores(query) for query in queries]
        index.encode()
        exact = [index.dense_scores(query) for query in queries]
        top = np.argsort(-np.array(rough), axis=1)[:,:20]  # where it matters: what a second stage would read
        def gap(found): return np.abs(np.take_along_axis(np.array(found)-np.array(exact), top, 1)).mean()
        assert gap(fitted) < .08 and gap(fitted) < gap(rough)

def test_without_a_table_words_answer_until_there_are_vectors(tmp_path, folder, model):
    with opened(folder, Encoder(model, 'cpu', half=False), tmp_path/'i.db') as index:
        index.update(encode=False)
        assert set(index.load().kinds) == {0} and index.load().matrix.shape[1] == 0
        assert [hit.score for hit in index.search('pizza', refresh=False)] == [hit.score for hit in index.search('pizza', mode='bm25', refresh=False)]
        search = NotebookSearch(index=index, cache=False)
        search.goes_on = False
        assert search('pizza', mode='dense', rerank=False) and index.encoded() == 1  # nothing but vectors was asked for

def test_a_reader_follows_vectors_that_others_make(tmp_path, folder, encoder):
    with opened(folder, encoder, tmp_path/'i.db') as mine, opened(folder, encoder, tmp_path/'i.db') as theirs:
        mine.update(encode=False)
        ids = mine.load().ids
        theirs.encode_some(theirs.waiting(5))
        assert (mine.load().kinds == real).sum() >= 5 and mine.load().ids is ids  # only the new ones were read
        theirs.encode()
        fresh = NotebookIndex(folder, encoder, tmp_path/'i.db')
        assert (mine.load().matrix == fresh.load().matrix).all() and mine.encoded() == 1

def test_a_cleared_and_refilled_file_is_not_taken_for_the_old_one(tmp_path, folder, encoder):
    with opened(folder, encoder, tmp_path/'i.db') as mine:
        mine.update(); mine.load()
        remove_index(tmp_path/'i.db', 0)
        write(folder/'n00.ipynb', ['quite another text'])
        with opened(folder, encoder, tmp_path/'i.db') as theirs: theirs.update(); expected = ranking(theirs)
        assert ranking(mine) == expected

def test_a_program_whose_file_was_deleted_goes_on_in_the_new_one(tmp_path, folder, encoder):
    with opened(folder, encoder, tmp_path/'i.db') as mine:
        mine.update()
        for file in tmp_path.glob('i.db*'): file.unlink()
        write(folder/'n00.ipynb', ['quite another text'])
        with opened(folder, encoder, tmp_path/'i.db') as theirs: theirs.update(); expected = ranking(theirs)
        assert mine.update().unchanged == 4 and ranking(mine) == expected

def test_a_file_that_somebody_has_open_is_emptied_and_stays(tmp_path, folder, encoder):
    with opened(folder, encoder, tmp_path/'i.db') as mine:
        mine.update()
        assert remove_index(tmp_path/'i.db', 0) and (tmp_path/'i.db').stat().st_size <= 4096
        assert mine.update().added == 4
    assert remove_index(tmp_path/'i.db', 0) and not (tmp_path/'i.db').exists()

# Encoded once

def test_no_second_set_of_paths_encodes_anything(tmp_path, encoder):
    whole,part = make_notebooks(tmp_path/'whole', 3, 6),make_notebooks(tmp_path/'whole'/'part', 2, 6, seed=1)
    with opened(part, encoder, None) as index: assert index.update().encoded > 0
    with opened(whole, encoder, None) as index: assert index.update().encoded > 0
    (tmp_path/'link').symlink_to(whole)
    shutil.copytree(whole, tmp_path/'copy')
    (whole/'.hidden').mkdir(); shutil.copy(whole/'n00.ipynb', whole/'.hidden')
    sets = [whole, part, [whole, part], [whole, whole], tmp_path/'link', tmp_path/'copy', whole/'n00.ipynb', tmp_path/'link'/'part', str(whole/'*.ipynb')]
    for paths in sets:
        with closing((index := NotebookIndex(paths, encoder)).db): assert index.update().encoded == 0, paths
    with closing((index := NotebookIndex(whole, encoder, hidden=True)).db): assert index.update().encoded == 0
    with opened(whole, encoder, tmp_path/'own.db') as index: assert index.update().encoded == 0

def test_a_folder_and_its_link_are_one_index_that_neither_adds_nor_drops(tmp_path, folder, encoder):
    (tmp_path/'link').symlink_to(folder)
    for path in (folder, tmp_path/'link', folder):
        with opened(path, encoder, None) as index:
            report = index.update()
            assert (report.added, report.removed) == ((4, 0) if path == folder and len(list((tmp_path/'cache').glob('*.db'))) == 1 and not report.unchanged else (0, 0))
            hit = index.search(asked, 1, refresh=False)[0]
            assert hit.path.startswith(str(path)) and index.neighbours(hit.passage) != ((), ())
    assert len(list((tmp_path/'cache').glob('*.db'))) == 1

def test_hidden_notebooks_stay_out_of_searches_that_did_not_ask_for_them(tmp_path, folder, encoder):
    (folder/'.secret').mkdir(); write(folder/'.secret'/'h.ipynb', ['elephant memory'])
    with closing((index := NotebookIndex(folder, encoder, hidden=True)).db): assert index.search('elephant', mode='bm25')
    with opened(folder, encoder, None) as index: assert not index.search('elephant', mode='bm25')

def test_only_real_vectors_of_the_same_model_are_borrowed(tmp_path, folder, encoder, other_encoder):
    with opened(folder, encoder, None) as index: index.update(encode=False); count = index.pending()
    with opened(folder, encoder, tmp_path/'a.db') as index: assert index.update().encoded == count  # there was none to borrow
    with opened(folder, other_encoder, None) as index: index.update()
    with opened(folder, encoder, tmp_path/'b.db') as index: assert index.update().encoded == count
    check_same(content(tmp_path/'a.db'), content(tmp_path/'b.db'))
    (tmp_path/'cache'/'junk.db').write_bytes(b'not a database'*100)
    with opened(folder, encoder, tmp_path/'c.db') as index: assert index.update().encoded == count

# Killed, and gone on with

def encode_for(file, model, seconds):
    "A worker that is killed, unless it is done before"
    program = 'import sys; from semsearch.behind import work; work(*sys.argv[1:])'
    child = subprocess.Popen([sys.executable, '-c', program, str(file), '160', *([model] if model else [])],
                             env=dict(os.environ, HF_HUB_OFFLINE='1', PYTHONPATH=str(root)), stderr=subprocess.PIPE)
    try: child.wait(seconds)
    except subprocess.TimeoutExpired: child.kill(); child.wait()
    return child.stderr.read()

def test_a_folder_whose_worker_is_killed_at_random_ends_the_same(tmp_path, model):
    folder,file,rng = make_notebooks(tmp_path/'nbs', 12, 60),tmp_path/'i.db',random.Random(1)
    encoder = Encoder(model)
    with opened(folder, encoder, file) as index: index.update(encode=False)
    for _ in range(20 if soak else 4): encode_for(file, model, rng.uniform(3, 9))
    assert encode_for(file, model, 120) == b'' and last_words(file) == ''
    with opened(folder, encoder, file) as index: assert index.encoded() == 1 and index.update().encoded == 0
    check_same(content(file), fresh_content(folder, encoder, tmp_path/'fresh.db'))

# The worker

def program(place, *args, **more):
    env = dict(os.environ, SEMSEARCH_INDEX_DIR=str(place/'cache'), HF_HUB_OFFLINE='1', PYTHONPATH=str(root), **more)
    own = 'import sys; from semsearch.cli import main; sys.argv[0] = "semsearch"; main()'
    return subprocess.Popen([sys.executable, '-c', own, *map(str, args)], cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def run(place, *args, **more):
    child = program(place, *args, **more)
    out,err = child.communicate(timeout=180)
    return child.returncode,out,err

def workers(place):
    "Processes that encode an index of this test"
    found = []
    for process in psutil.process_iter(['cmdline']):
        line = process.info['cmdline'] or []
        if any('semsearch.behind' in part for part in line) and any(str(place) in part for part in line): found.append(process)
    return found

def eventually(true, seconds=120):
    end = time.monotonic()+seconds
    while time.monotonic() < end:
        if true(): return True
        time.sleep(.1)
    return False

def shown_status(place): return json.loads(run(place, 'status', 'nbs', '--json')[1])

@pytest.fixture
def large(tmp_path): return make_notebooks(tmp_path/'nbs', 10, 80)

def test_the_answer_comes_first_and_one_worker_does_the_rest(tmp_path, large):
    both = [program(tmp_path, asked, 'nbs', '--no-rerank', '-k', '1') for _ in range(2)]  # two terminals at once
    ends = [child.communicate(timeout=180) for child in both]
    assert [child.returncode for child in both] == [0, 0], ends
    assert any('the rest follows in the background' in err for _,err in ends) and all('.ipynb:' in out for out,_ in ends)
    assert eventually(lambda: len(workers(tmp_path)) <= 1, 60)
    worker = workers(tmp_path)
    if worker: assert worker[0].nice() == 19
    assert eventually(lambda: not workers(tmp_path))
    status = shown_status(tmp_path)
    assert status['encoded'] == status['passages'] > 0
    code,out,err = run(tmp_path, asked, 'nbs', '--no-rerank', '-k', '1')
    assert (code, err) == (0, '') and not workers(tmp_path)  # nothing is left to say or to do

@pytest.mark.parametrize('args, more', [(['--no-background'], {}), ([], dict(SEMSEARCH_BACKGROUND='0')), (['--mode', 'bm25'], {})])
def test_a_worker_can_be_forbidden(tmp_path, large, args, more):
    code,out,err = run(tmp_path, asked, 'nbs', '--no-rerank', '--json', *args, **more)
    assert code == 0 and 'background' not in err and not workers(tmp_path)
    assert json.loads(out)[0]['encoded'] == 0 and 'encoded 0%' in run(tmp_path, 'status', 'nbs')[1]

def test_waiting_encodes_first(tmp_path, folder):
    code,out,err = run(tmp_path, asked, 'nbs', '--no-rerank', '--json', '--wait')
    assert code == 0 and 'encoded' not in json.loads(out)[0] and not workers(tmp_path)

@pytest.mark.parametrize('args', [['clear', 'nbs'], ['clear', '--all'], ['index', 'nbs', '--rebuild']])
def test_a_worker_never_survives_what_it_works_for(tmp_path, args):
    make_notebooks(tmp_path/'nbs', 10, 400)
    assert run(tmp_path, asked, 'nbs', '--no-rerank')[0] == 0
    assert eventually(lambda: workers(tmp_path) and shown_status(tmp_path)['encoded'])
    assert run(tmp_path, *args)[0] == 0
    assert eventually(lambda: not workers(tmp_path), 60)
    left = [file.name for file in (tmp_path/'cache').iterdir() if not file.name.startswith('scores')]
    if args[0] == 'clear': assert left == []
    else: assert shown_status(tmp_path)['encoded'] == shown_status(tmp_path)['passages'] == 4000

def test_a_worker_of_an_older_version_stops_and_has_nothing_to_say(tmp_path, folder, model):
    with opened(folder, Encoder(model), tmp_path/'i.db') as index:
        index.update(encode=False)
        index.db.pragma('user_version', format_version+1)
    before = (tmp_path/'i.db').read_bytes()
    assert encode_for(tmp_path/'i.db', model, 60) == b'' and (tmp_path/'i.db').read_bytes() == before
    with closing(apsw.Connection(str(tmp_path/'i.db'))) as db: assert db.execute('select count(*) from vectors where real').get == 0
    assert last_words(tmp_path/'i.db') == ''

def test_a_worker_makes_no_index(tmp_path, model):
    assert encode_for(tmp_path/'none.db', model, 60) == b'' and not (tmp_path/'none.db').exists()

def test_a_full_disk_in_the_worker_is_told_by_the_next_search(tmp_path, model):
    make_notebooks(tmp_path/'nbs', 4, 100)
    with mounted(tmp_path/'disk', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs') as disk:
        file = disk/'i.db'
        assert run(tmp_path, asked, 'nbs', '--no-rerank', '--no-background', '--index', file)[0] == 0
        with open(disk/'other', 'wb', buffering=0) as ballast:
            for _ in range(2*2048):
                if shutil.disk_usage(disk).free < 65536: break
                ballast.write(bytes(4096))
        assert encode_for(file, None, 120) == b''
        assert 'full' in last_words(file)
        code,out,err = run(tmp_path, asked, 'nbs', '--no-rerank', '--mode', 'bm25', '--index', file)
        assert 'The rest was not encoded' in err and 'full' in err
        code,out,err = run(tmp_path, 'doctor', 'nbs', '--index', file)
        assert code == 2 and 'NOT  background' in out
        (disk/'other').unlink()
        assert encode_for(file, None, 120) == b'' and last_words(file) == ''

def test_a_home_that_cannot_be_written_answers_and_says_why(tmp_path, folder):
    "What was stored is searched; what cannot be kept is not kept"
    (tmp_path/'real').mkdir()
    with opened(folder, Encoder(), tmp_path/'real'/'i.db') as index: index.update(encode=False)
    with read_only(tmp_path/'real', tmp_path/'shown') as shown:
        code,out,err = run(tmp_path, asked, 'nbs', '--no-rerank', '--index', shown/'i.db')
        assert code == 2 and 'Cannot write' in err and 'Traceback' not in err
        assert 'NOT  background' in run(tmp_path, 'doctor', 'nbs', '--index', shown/'i.db')[1]

def test_a_thread_steps_back_for_questions_and_another_process(tmp_path, large, encoder):
    with opened(large, encoder, tmp_path/'i.db') as index:
        index.update(encode=False)
        behind = behind_of(index)
        with behind.asking():
            behind.start(); time.sleep(.3)
            assert index.encoded() == 0
        behind.thread.join(60)
        assert index.encoded() == 1 and behind.trouble == ''
        write(large/'more.ipynb', [prose(random.Random(8)) for _ in range(50)])
        index.update(encode=False)
        with alone(index.file): behind.start(); behind.thread.join(60)
        assert index.encoded() < 1
        behind.start(); behind.thread.join(60)
        assert index.encoded() == 1

def test_a_search_goes_on_behind_its_answer(tmp_path, large, monkeypatch):
    monkeypatch.delenv('SEMSEARCH_BACKGROUND', raising=False)
    search = NotebookSearch(large, index=tmp_path/'i.db', cache=False)
    first = search(asked, 2, candidates=2)
    assert first.encoded < 1 and eventually(lambda: search.index.encoded() == 1)
    assert search(asked, 2, candidates=2).encoded == 1

# What is stored

def test_the_shelf_lists_what_is_stored_and_clears_what_is_missing(tmp_path, encoder):
    for name in ('one', 'two'):
        folder = make_notebooks(tmp_path/name, 2, 3)
        with opened(folder, encoder, None) as index: index.update()
    assert len(shelf()) == 2 and not any(one.missing for one in shelf())
    shutil.rmtree(tmp_path/'one')
    code,out,err = run(tmp_path, 'status', '--all')
    assert code == 0 and out.count('2 notebooks') == 2 and 'one  (no longer there)' in out
    assert run(tmp_path, 'clear', '--missing')[0] == 0
    assert [one.paths for one in shelf()] == [[str(tmp_path/'two')]]
    assert json.loads(run(tmp_path, 'status', '--all', '--json')[1])[0]['missing'] is False
    assert run(tmp_path, 'clear', '--all')[0] == 0 and len(shelf()) == 0
    assert 'nothing to remove' in run(tmp_path, 'clear', '--all')[2]
