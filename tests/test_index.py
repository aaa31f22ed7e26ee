"What the index promises when processes are killed, disks are full, files are damaged, and several want it at once."
import itertools, json, os, random, resource, shutil, sqlite3, subprocess, sys, tempfile, time
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
import apsw, pytest
from fastcore.basics import AttrDict
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from helpers import (Remembering, answers, asked, can_fork, check_same, content, digests, fresh_content, heard, make_notebooks, modes, opened,
                     prose, soak, start, tiny_encoder, write)
from semsearch.cli import remove_index
from semsearch.core import Hit
from semsearch.encoder import Encoder, ModelError
from semsearch.core import marked
from semsearch.index import NotebookIndex, rare_words
from semsearch.store import IndexFileError, empty, format_version, open_index, real
from semsearch.loader import load_passages

needs_fork = pytest.mark.skipif(not can_fork, reason='processes are forked')

# Processes at once

def test_eight_processes_may_make_the_same_index_at_once(tmp_path):
    program = ('import sys; from semsearch.store import open_index; '
               'open_index(sys.argv[1]).execute("insert into info values(?,1)", (sys.argv[2],))')
    running = [subprocess.Popen([sys.executable, '-c', program, str(tmp_path/'new.db'), str(i)], stderr=subprocess.PIPE,
                                text=True) for i in range(8)]
    assert [process.communicate()[1] for process in running] == ['']*8
    db = open_index(tmp_path/'new.db')
    assert db.execute('select count(*) from info').get == 8
    assert db.pragma('integrity_check') == 'ok'

def update_until_told(pipe, folder, model, file):
    encoder,done = tiny_encoder(model),0
    with opened(folder, encoder, file) as index:
        pipe.send('ready')
        while not pipe.poll(): index.update(); done += 1
    return done

def search_until_told(pipe, folder, model, file):
    encoder,done = tiny_encoder(model),0
    with opened(folder, encoder, file) as index:
        pipe.send('ready')
        while not pipe.poll():
            mode = modes[done%3]
            hits = index.search(asked, 50, mode, refresh=done%2 == 0); done += 1
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True) and all(0 < score <= 1.001 for score in scores)
            places = [(hit.path, hit.cell_index, hit.text) for hit in hits]
            assert len(set(places)) == len(places), 'a passage stands twice'
    return done

def edit(folder, rng, i):
    "One change of the kind that a person makes"
    paths = sorted(folder.glob('*.ipynb'))
    path,kind = rng.choice(paths),rng.choice('add change change move delete copy break touch'.split())
    if kind == 'add': write(folder/f'new{i}.ipynb', [prose(rng) for _ in range(20)])
    elif kind == 'change': write(path, [prose(rng) for _ in range(20)])
    elif kind == 'move': os.replace(path, folder/f'moved{i}.ipynb')
    elif kind == 'delete' and len(paths) > 6: path.unlink()
    elif kind == 'copy': shutil.copy(path, folder/f'copy{i}.ipynb')
    elif kind == 'break': path.write_text('{"cells": [')
    elif kind == 'touch': os.utime(path)

def edit_beside(running, folder, rng, edits):
    "Edit notebooks while processes use them, then stop these; what each of them said at its end"
    for _,pipe in running: assert heard(pipe) == 'ready'
    for i in range(edits): edit(folder, rng, i); time.sleep(.05)
    for _,pipe in running:
        with suppress(BrokenPipeError): pipe.send('stop')
    ends = [heard(pipe) for _,pipe in running]
    for child,_ in running: child.join(60)
    return ends

@needs_fork
def test_four_writers_and_four_readers_share_an_index_while_notebooks_are_edited(tmp_path, processes, model, encoder):
    folder,file,rng = make_notebooks(tmp_path/'nbs', 12, 20),tmp_path/'i.db',random.Random(3)
    steps = [update_until_told, search_until_told]*4
    running = [start(processes, step, str(folder), model, str(file)) for step in steps]
    ends = edit_beside(running, folder, rng, 400 if soak else 60)
    assert all(good and done for good,done in ends), ends
    with opened(folder, encoder, file) as index: index.update()
    check_same(content(file), fresh_content(folder, encoder, tmp_path/'fresh.db'))

def clear_until_told(pipe, file):
    done = 0
    pipe.send('ready')
    while not pipe.poll(.05): done += remove_index(file)
    return done

def use_until_told(pipe, folder, model, file):
    "Open, update, search and close; whatever the file holds, the scores come from our model"
    encoder,done = Remembering(tiny_encoder(model).full, 'cpu', half=False),0
    pipe.send('ready')
    while not pipe.poll():
        try:
            with opened(folder, encoder, file) as index:
                for refresh in (True, False, True):
                    hits = index.search(asked, 50, 'dense', refresh=refresh)
                    cosines = encoder.encode(hits.map(lambda hit: hit.passage.embed_text)) @ encoder.encode_query(asked)
                    assert all(abs(hit.score - cosine) < 2e-3 for hit,cosine in zip(hits, cosines)), 'vectors of another model'
                    done += len(hits)
        except IndexFileError as error:
            assert 'made with another' in str(error) or 'no such table' in str(error), error
            if 'made with another' in str(error): remove_index(file)
    return done

@needs_fork
def test_an_index_may_be_cleared_and_change_its_model_while_others_use_it(tmp_path, processes, model, encoder, other_encoder):
    "Programs with two models fight for one file, others clear it, and people edit; what is left is an index"
    folder,file,rng = make_notebooks(tmp_path/'nbs', 8, 10),tmp_path/'i.db',random.Random(9)
    other = other_encoder.model
    steps = [(use_until_told, str(folder), model, str(file))]*2 + [(use_until_told, str(folder), other, str(file))]
    running = [start(processes, *step) for step in [*steps, (clear_until_told, str(file))]]
    ends = edit_beside(running, folder, rng, 200 if soak else 40)
    assert all(good for good,_ in ends) and sum(done for _,done in ends), ends
    print(f'{sum(done for _,done in ends[:-1])} scores checked, cleared {ends[-1][1]} times')
    with closing(apsw.Connection(str(file))) as db: assert db.pragma('integrity_check') == 'ok'
    remove_index(file)
    check_same(fresh_content(folder, encoder, file), fresh_content(folder, encoder, tmp_path/'fresh.db'))

def test_a_program_that_has_an_index_open_outlives_its_clearing(tmp_path, encoder, other_encoder):
    folder,file = make_notebooks(tmp_path/'nbs', 3, 10),tmp_path/'i.db'
    with opened(folder, encoder, file) as index:
        index.update(); before = answers(index)
        assert remove_index(file) and not remove_index(file)
        assert answers(index) == before and index.status().notebooks == 3
        assert remove_index(file)
        with opened(folder, other_encoder, file) as other: other.update()
        for attempt in (index.update, lambda: index.search(asked), lambda: index.search(asked, refresh=False)):
            with pytest.raises(IndexFileError, match='made with another'): attempt()
    with opened(folder, other_encoder, file) as other: assert other.update().unchanged == 3

@pytest.mark.parametrize('damage', ['page', 'tables', 'words'])
def test_a_damaged_index_can_be_cleared(tmp_path, encoder, damage):
    folder,file = make_notebooks(tmp_path/'nbs', 3, 40),tmp_path/'i.db'
    expected = fresh_content(folder, encoder, file)
    if damage == 'words':
        with closing(apsw.Connection(str(file))) as db: db.execute('delete from words_data')
    else:
        data = bytearray(file.read_bytes())
        for start in range(100 if damage == 'page' else 4096, 4096 if damage == 'page' else len(data), 16): data[start] ^= 255
        file.write_bytes(data)
    assert remove_index(file)
    check_same(fresh_content(folder, encoder, file), expected)

# Killed

def update_once(pipe, folder, model, file):
    encoder = tiny_encoder(model)
    pipe.send('ready')
    with opened(folder, encoder, file) as index: index.update()

@needs_fork
def test_an_index_survives_a_kill_at_any_moment(tmp_path, processes, model, encoder):
    folder,file,old,rng = make_notebooks(tmp_path/'nbs', 12, 130),tmp_path/'i.db',tmp_path/'old.db',random.Random(4)
    before = fresh_content(folder, encoder, old)
    for i in range(4): write(folder/f'n{i:02}.ipynb', [prose(rng) for _ in range(140)])
    for i in range(4, 7): (folder/f'n{i:02}.ipynb').unlink()
    for i in range(4): write(folder/f'x{i:02}.ipynb', [prose(rng) for _ in range(130)])
    expected = fresh_content(folder, encoder, tmp_path/'fresh.db')
    known = digests(folder)
    def begin(again):
        for end in ('', '-wal', '-shm'): Path(f'{file}{end}').unlink(missing_ok=True)
        if again: shutil.copy(old, file)
        child,pipe = start(processes, update_once, str(folder), model, str(file))
        assert heard(pipe) == 'ready'
        return child,pipe,time.perf_counter()
    def written():
        with suppress(FileNotFoundError): return os.path.getsize(file) + os.path.getsize(f'{file}-wal')
        return 0
    def undisturbed(again):
        (child,pipe,started),most = begin(again),0
        while not pipe.poll(.001): most = max(most, written())
        assert heard(pipe) == (True, None)
        taken = time.perf_counter()-started
        child.join()
        check_same(content(file), expected)
        return taken,most
    longest,early,partly,late = [undisturbed(again) for again in (False, True)],0,0,0
    moments = 60 if soak else 4
    for i in range(moments):
        again = i%2
        child,pipe,started = begin(again)
        seconds,most = [limit*(i//2 + rng.random())/(moments//2) for limit in longest[again]]
        if i//2%2: time.sleep(seconds)  # a moment of the whole update; the other half: once so much is written
        while not i//2%2 and written() < most and child.is_alive(): time.sleep(.0005)
        child.kill(); child.join(); pipe.close()
        with opened(folder, encoder, file) as index:
            found = content(file)
            found_before = found.passages == (before.passages if again else [])
            early,late = early+found_before,late+(found.passages == expected.passages)
            partly += not found_before and found.passages != expected.passages
            said = answers(index, refresh=False)
            assert all(said.values()) == bool(found.passages)
            index.update()
            check_same(content(file), expected)
    print(f'{moments} kills: {early} before the first batch, {partly} between batches, {late} at the end; '
          f'undisturbed {longest[0][0]:.2f} s and {longest[1][0]:.2f} s')
    assert digests(folder) == known

# Disks

def update_with_small_files(pipe, folder, model, file, room):
    "Update under a limit on the size of files, and tell what happened"
    with opened(folder, tiny_encoder(model), file) as index:
        before,limits = answers(index, refresh=False),resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        failed = []
        for attempt in (index.update, lambda: index.search(asked)):
            try: attempt()
            except IndexFileError as error: failed.append(str(error))
        same = answers(index, refresh=False) == before
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        index.update()
    return failed,same

@needs_fork
@pytest.mark.parametrize('room', [0, 4096, 50_000, 200_000] if soak else [0, 200_000])
def test_a_limit_on_file_sizes_is_named_and_the_old_index_still_answers(tmp_path, processes, model, encoder, room):
    folder,file = make_notebooks(tmp_path/'nbs', 3, 20),tmp_path/'i.db'
    fresh_content(folder, encoder, file)
    write(folder/'large.ipynb', [prose(random.Random(5)) for _ in range(2000)])
    child,pipe = start(processes, update_with_small_files, str(folder), model, str(file), room)
    good,found = heard(pipe); child.join()
    assert good, found
    failed,same = found
    assert len(failed) == 2 and all(str(file) in message for message in failed) and same
    check_same(content(file), fresh_content(folder, encoder, tmp_path/'fresh.db'))

@contextmanager
def mounted(place, *options):
    "Mount something on a new folder; skips the test where that is not allowed"
    place.mkdir()
    if os.geteuid() or not shutil.which('mount'): pytest.skip('only root may mount a small disk')
    done = subprocess.run(['mount', *options, str(place)], capture_output=True, text=True)
    if done.returncode: pytest.skip(f'a small disk cannot be mounted: {done.stderr.strip()}')
    try: yield place
    finally: subprocess.run(['umount', '--lazy', str(place)], check=True)

def test_a_full_disk_is_named_and_the_old_index_still_answers(tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs', 3, 20)
    with mounted(tmp_path/'disk', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs') as disk:
        file = disk/'i.db'
        with opened(folder, encoder, file) as index:
            index.update()
            before = answers(index, refresh=False)
            write(folder/'large.ipynb', [prose(random.Random(5), 20) for _ in range(3000)])
            for attempt in (index.update, lambda: index.search(asked)):
                with pytest.raises(IndexFileError, match=str(file)): attempt()
                assert answers(index, refresh=False) == before
        assert content(file).passages
        with opened(folder, encoder, file) as index: assert answers(index, refresh=False) == before
        with open(disk/'other', 'wb', buffering=0) as ballast, pytest.raises(OSError):
            while True: ballast.write(bytes(4096))
        for place in (file, disk/'new.db', disk/'new'/'new.db'):
            with pytest.raises(IndexFileError, match=str(place)): NotebookIndex(folder, encoder, place).update()
        (disk/'other').unlink()
        subprocess.run(['mount', '-o', 'remount,size=64m', str(disk)], check=True)
        with opened(folder, encoder, file) as index:
            assert answers(index, refresh=False) == before
            index.update()
        check_same(content(file), fresh_content(folder, encoder, tmp_path/'fresh.db'))

@contextmanager
def read_only(folder, shown):
    "A folder in which nobody may write, root included, as `shown`"
    if os.geteuid():
        shown.symlink_to(folder)
        os.chmod(folder, 0o555)
        try: yield shown
        finally: os.chmod(folder, 0o755)
    else:
        with mounted(shown, '--bind', str(folder)):
            subprocess.run(['mount', '-o', 'remount,bind,ro', str(shown)], check=True)
            yield shown

def test_a_read_only_place_is_named_and_the_old_index_still_answers(tmp_path, encoder):
    folder,place = make_notebooks(tmp_path/'nbs', 3, 20),tmp_path/'place'
    place.mkdir()
    with opened(folder, encoder, place/'i.db') as index: index.update(); before = answers(index, refresh=False)
    data = (place/'i.db').read_bytes()
    write(folder/'new.ipynb', ['something new'])
    with read_only(place, tmp_path/'shown') as shown:
        for file in (shown/'i.db', shown/'new.db', shown/'deep'/'er'/'new.db'):
            with pytest.raises(IndexFileError, match=str(file)): NotebookIndex(folder, encoder, file).update()
    assert (place/'i.db').read_bytes() == data and os.listdir(place) == ['i.db']
    with opened(folder, encoder, place/'i.db') as index: assert answers(index, refresh=False) == before

def test_a_place_that_cannot_be_a_file_is_named(tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs', 1, 2)
    (tmp_path/'plain').write_text('words'); (tmp_path/'folder').mkdir()
    for file in (tmp_path/'folder', tmp_path/'plain'/'i.db', tmp_path/('x'*300), tmp_path/'plain'):
        with pytest.raises(IndexFileError, match=file.name): NotebookIndex(folder, encoder, file)
    assert (tmp_path/'plain').read_text() == 'words'

# Damage

@pytest.fixture(scope='module')
def sound(tmp_path_factory, encoder):
    "A folder, its index, and what that says"
    place = tmp_path_factory.mktemp('sound')
    folder = make_notebooks(place/'nbs', 6, 60)
    (folder/'broken.ipynb').write_text('{')
    with opened(folder, encoder, place/'i.db') as index: index.update(); before = answers(index, refresh=False)
    return AttrDict(folder=folder, data=(place/'i.db').read_bytes(), before=before)

def try_everything(sound, encoder, file):
    "Use an index in every way; each works, or raises an IndexFileError that names the file"
    def attempt(step):
        try: return step()
        except IndexFileError as error: assert str(file) in str(error); return error
    index = attempt(lambda: NotebookIndex(sound.folder, encoder, file))
    if isinstance(index, IndexFileError): return [index]
    path = str(sorted(sound.folder.glob('n*.ipynb'))[0])
    def search(mode, refresh):
        hits = index.search(asked, 10**6, mode, refresh=refresh)
        assert all(0 < hit.score <= 1.001 for hit in hits)
        return repr(hits),hits.map(Hit.row)
    def similar():
        try: return repr(index.similar(path, 'c3'))
        except KeyError as error: assert 'No passage begins' in str(error)
    steps = [index.status, *[partial(search, mode, False) for mode in modes], similar, index.update,
             *[partial(search, mode, True) for mode in modes], similar, index.status]
    try: return [attempt(step) for step in steps]
    finally: index.db.close()

def damaged(data, rng):
    "An index file that something went wrong with"
    data,kind = bytearray(data),rng.randrange(4)
    if kind == 0: return data[:rng.randrange(len(data))]
    if kind == 1: return data[:rng.randrange(len(data)//4096)*4096]
    if kind == 2:
        for _ in range(rng.randrange(1, 40)): data[rng.randrange(len(data))] = rng.randrange(256)
    else:
        for _ in range(rng.randrange(1, 4)):
            start = rng.randrange(len(data))
            data[start:start+2000] = rng.randbytes(min(2000, len(data)-start))
    return data

@pytest.mark.parametrize('seed', range(40 if soak else 4))
def test_a_damaged_file_is_named_or_does_no_harm(tmp_path, sound, encoder, seed):
    rng,known = random.Random(seed),digests(sound.folder)
    for i in range(25):
        file = tmp_path/f'{i}.db'
        file.write_bytes(damaged(sound.data, rng))
        try: try_everything(sound, encoder, file)
        except Exception as error: raise AssertionError(f'damage {seed}, {i}: {error!r}') from error
    assert digests(sound.folder) == known

def altered(sound, file, *statements):
    "A copy of the sound index in which something else was written"
    file.write_bytes(sound.data)
    with closing(apsw.Connection(str(file))) as db:
        for statement in statements: db.execute(statement)
    return file

@pytest.mark.parametrize('version', [0, 1, -1, 10**6])
def test_another_format_is_refused_and_left_alone(tmp_path, sound, encoder, version):
    file = altered(sound, tmp_path/'i.db', f'pragma user_version={version}')
    data = file.read_bytes()
    with pytest.raises(IndexFileError, match=f'{file} has format {version}'): NotebookIndex(sound.folder, encoder, file)
    assert file.read_bytes() == data

def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path, sound, encoder):
    same = f'pragma user_version={format_version}'
    for name,script in [('other', 'create table t(a); insert into t values(1)'), ('mark', 'pragma application_id=7'),
                        ('version', f'create table t(a); {same}'), ('both', f'create table t(a); pragma application_id=7; {same}')]:
        with closing(sqlite3.connect(tmp_path/f'{name}.db')) as db: db.executescript(script)
    shutil.copy(next(sound.folder.glob('n*.ipynb')), tmp_path/'nb.ipynb')
    (tmp_path/'text.txt').write_text('words '*1000)
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        with pytest.raises(IndexFileError, match=str(file)): NotebookIndex(sound.folder, encoder, file)
        assert file.read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 6

def test_a_pipe_is_neither_opened_nor_hashed(tmp_path):
    "Opening a pipe waits until somebody writes to it; a device may have no end"
    os.mkfifo(tmp_path/'pipe')
    look = 'import sys; from semsearch.store import file_digest, owner_of; print(file_digest(sys.argv[1]), owner_of(sys.argv[1]))'
    for path,said in ((tmp_path/'pipe', 'no file None'), ('/dev/zero', 'no file None'), (tmp_path, 'a folder None')):
        assert subprocess.run([sys.executable, '-c', look, str(path)], capture_output=True, text=True, timeout=60).stdout.strip() == said

def test_an_empty_file_becomes_an_index(tmp_path, sound, encoder):
    (tmp_path/'i.db').touch()
    with opened(sound.folder, encoder, tmp_path/'i.db') as index: assert index.update().added == 7

wrong = '''
update vectors set vector=zeroblob(2) where hash=(select min(hash) from vectors)
update vectors set vector=zeroblob(768)
update vectors set vector=x'00' where hash=(select max(hash) from vectors)
update vectors set vector=vector||x'00'
update vectors set vector=''
delete from vectors where hash=(select min(hash) from vectors)
delete from vectors
update vectors set vector=vector||vector where hash=(select max(hash) from vectors)
update passages set headings='[' where id=1
update passages set headings='7'
update passages set headings=null
update passages set facts='no'
update passages set facts='7'
update passages set facts=cast(x'ff' as text)
update passages set text=x'ff00fe'
update passages set text=null
update passages set title=null
update passages set cell_index='x'
update notebooks set mtime='x',digest=x'00'
delete from passages where id%2
delete from passages
delete from notebooks
delete from info
update info set value=''
alter table passages drop column facts
drop table vectors
drop table passages
drop table words
drop table notebooks
drop table info
drop table words_data
delete from words_data where id=1
delete from words_docsize
delete from words_idx
delete from words_config
insert into words(words) values('delete-all')
insert into words(rowid,text) values(9999,'sort list')
insert into words(rowid,text) values(-1,'sort list')
'''.strip().splitlines()

@pytest.mark.parametrize('statement', wrong)
def test_wrong_values_are_named_or_do_no_harm(tmp_path, sound, encoder, statement):
    known = digests(sound.folder)
    try_everything(sound, encoder, altered(sound, tmp_path/'i.db', statement))
    assert digests(sound.folder) == known

def test_a_vector_of_another_size_is_never_compared(tmp_path, sound, encoder):
    "One and a half and a half have the right sum, and would shift all vectors between them"
    first,last = (f'where hash=(select {which}(hash) from vectors)' for which in ('min', 'max'))
    file = altered(sound, tmp_path/'i.db', f'update vectors set vector=zeroblob(96) {first}',
                   f'update vectors set vector=zeroblob(32) {last}')
    with opened(sound.folder, encoder, file) as index:
        with pytest.raises(IndexFileError, match=str(file)): index.search(asked, refresh=False)

@pytest.mark.filterwarnings('ignore:overflow')
def test_vectors_that_are_not_numbers_are_refused(tmp_path, model):
    "A model in half precision that overflows: what it makes is never kept, and another run encodes what is missing"
    folder,encoder = make_notebooks(tmp_path/'nbs', 2, 3),tiny_encoder(model)
    good = encoder.encode
    for bad in (float('nan'), float('inf'), 1e6): # the last one is too large for 16 bits
        def encode(texts, progress=None): made = good(texts, progress); made[-1,0] = bad; return made
        with opened(folder, encoder, tmp_path/'i.db') as index:
            encoder.encode = encode
            with pytest.raises(ModelError, match='not numbers'): index.update()
            assert index.encoded() < 1
            encoder.encode = good
    with opened(folder, encoder, tmp_path/'i.db') as index: assert index.update().skipped == 0 and index.encoded() == 1
    check_same(content(tmp_path/'i.db'), fresh_content(folder, encoder, tmp_path/'fresh.db'))

# Any order of edits

class Killed(BaseException): "Stands for a kill: nothing catches it, and nothing is cleaned up"

class Folder(RuleBasedStateMachine):
    "A folder that is edited, its index, and a naive model: read and encode everything again at each step"
    encoders = None

    @initialize()
    def begin(self):
        self.place = Path(tempfile.mkdtemp())
        self.folder,self.file,self.clock = self.place/'nbs',self.place/'i.db',itertools.count(10**18, 10**9)
        (self.folder/'sub').mkdir(parents=True)
        self.encoder = self.encoders[0]
        self.anew()

    def anew(self):
        "Make an index where there is none"
        self.index,self.states,self.hashes,self.crashed = NotebookIndex(self.folder, self.encoder, self.file),{},set(),False

    def paths(self): return sorted(self.folder.rglob('*.ipynb'))
    def pick(self, number): return self.paths()[number % len(self.paths())] if self.paths() else None
    def place_of(self, name): return self.folder/f'{name}.ipynb'
    def stamp(self, path):
        "A later time than any before: two edits within one tick of the clock are another matter"
        if path.is_file(): now = next(self.clock); os.utime(path, ns=(now, now))
    def wipe(self, path):
        if path.is_dir() and not path.is_symlink(): path.rmdir()
        else: path.unlink(missing_ok=True)

    names,numbers = st.sampled_from(['a', 'b', 'c', 'sub/a', 'sub/d']),st.integers(0, 9)
    texts = st.lists(st.sampled_from(['sort a list', 'order a pizza', 'search the web', 'long '*200]), max_size=4)

    @rule(name=names, texts=texts)
    def save(self, name, texts):
        self.wipe(self.place_of(name)); write(self.place_of(name), texts); self.stamp(self.place_of(name))

    @rule(number=numbers, texts=texts)
    def change(self, number, texts):
        if path := self.pick(number): self.wipe(path); write(path, texts); self.stamp(path)

    @rule(number=numbers, name=names)
    def move(self, number, name):
        target = self.place_of(name)
        if (path := self.pick(number)) and path != target: self.wipe(target); path.rename(target)

    @rule(number=numbers, name=names)
    def copy(self, number, name):
        path,target = self.pick(number),self.place_of(name)
        if path and path.is_file() and path != target: self.wipe(target); shutil.copy(path, target); self.stamp(target)

    @rule(number=numbers)
    def delete(self, number):
        if path := self.pick(number): self.wipe(path)

    @rule(name=names, kind=st.sampled_from(['{', '', '[]', 'folder', 'link']))
    def spoil(self, name, kind):
        path = self.place_of(name)
        self.wipe(path)
        if kind == 'folder': path.mkdir()
        elif kind == 'link': path.symlink_to(self.folder/'nowhere')
        else: path.write_text(kind); self.stamp(path)

    @rule(number=numbers)
    def touch(self, number):
        if path := self.pick(number): self.stamp(path)

    @rule()
    def reopen(self):
        self.index.db.close()
        self.index = NotebookIndex(self.folder, self.encoder, self.file)

    @rule()
    def clear(self):
        self.index.db.close()
        assert remove_index(self.file) and not remove_index(self.file)
        self.anew()

    @rule()
    def switch_model(self):
        "The other model is refused, changes nothing, and may make an index of its own"
        before,other = content(self.file),self.encoders[self.encoder is self.encoders[0]]
        with pytest.raises(IndexFileError, match='made with another'): NotebookIndex(self.folder, other, self.file)
        assert content(self.file) == before
        self.encoder = other
        self.clear()

    @rule(name=names, texts=texts, count=st.integers(0, 3))
    def read(self, name, texts, count):
        "Only read what is new, look through some of it, and encode a part"
        self.save(name, texts)
        self.index.update(encode=False)
        assert set(self.index.load().kinds) <= {empty, real}
        self.index.want(self.index.search(asked, 2, 'bm25', refresh=False))
        before = self.index.pending()
        encoded = self.index.encode_some(self.index.waiting(count))
        assert self.index.pending() <= before - encoded
        self.crashed = True # an update after this finds a part of its work done

    @rule(name=names, texts=texts, number=numbers, statement=st.integers(0, 40), gone=st.booleans())
    def crash(self, name, texts, number, statement, gone):
        "Kill an update at one of its statements: what lies on the disk then is all that is left"
        self.save(name, texts)
        if gone: self.delete(number)
        count,left = itertools.count(),self.place/'left'
        def stop(*_):
            if next(count) < statement or left.exists(): return True
            left.mkdir()
            for file in self.place.glob('i.db*'):
                if not file.name.endswith('-shm'): shutil.copy(file, left)
            raise Killed
        self.index.db.exec_trace = stop
        try: self.index.update()
        except Killed: pass
        except IndexFileError: assert left.exists() # killed while apsw ended a transaction within another
        self.index.db.exec_trace = None
        self.index.db.close()
        if left.exists():
            for file in self.place.glob('i.db*'): file.unlink()
            for file in left.iterdir(): file.rename(self.place/file.name)
            left.rmdir()
        self.index,self.crashed = NotebookIndex(self.folder, self.encoder, self.file),True

    @invariant()
    def agrees(self):
        if not hasattr(self, 'index'): return
        states = {str(path): path.read_bytes() if path.is_file() else path.is_symlink() for path in self.paths()}
        truth = load_passages(self.folder, max_tokens=self.index.max_tokens, tokenize=self.encoder.tokenize)
        found = self.index.update()
        both = states.keys() & self.states.keys()
        changed = sum(states[path] != self.states[path] for path in both)
        hashes = set(truth.attrgot('hash'))
        if not self.crashed: # an update that was killed may have done any part of it
            assert (found.added, found.removed) == (len(states)-len(both), len(self.states)-len(both))
            assert (found.changed, found.unchanged) == (changed, len(both)-changed)
            assert found.encoded == len(hashes-self.hashes)
        assert sorted(found.errors) == sorted((error.path, error.reason) for error in truth.errors)
        assert found.skipped == len(truth.errors)
        self.states,self.hashes,self.crashed = states,hashes,False
        held,status = content(self.file),self.index.status()
        assert (status.notebooks, status.passages) == (len(states), len(truth))
        assert held.vectors.keys() == hashes
        rows = self.index.db.execute('select path,cell_index,cell_id,cell_type,text,hash from passages')
        expected = ((p.path, p.cell_index, p.cell_id, p.cell_type, p.text, p.hash) for p in truth)
        assert sorted(rows) == sorted(expected)
        self.answers_agree(truth)

    def answers_agree(self, truth):
        def key(passage): return passage.path,passage.cell_index,passage.text
        cosines = self.encoder.encode(truth.attrgot('embed_text')) @ self.encoder.encode_query(asked)
        with opened(self.folder, self.encoder, ':memory:') as fresh: bm25 = fresh.search(asked, 10**6, 'bm25')
        expected = dict(dense=dict(zip(map(key, truth), cosines)), bm25={key(hit): hit.score for hit in bm25})
        for mode,scores in expected.items():
            hits = self.index.search(asked, 10**6, mode, refresh=False)
            for hit in hits: assert abs(hit.score - scores[key(hit)]) < 2e-3
            due = {passage.hash for passage in truth if scores.get(key(passage), 0) > 2e-3}
            assert due <= {hit.passage.hash for hit in hits}

    def teardown(self):
        if hasattr(self, 'index'): self.index.db.close(); shutil.rmtree(self.place)

@pytest.mark.parametrize('part', range(20) if soak else [0])
def test_any_order_of_edits_ends_in_what_a_fresh_reading_gives(encoder, other_encoder, part):
    Folder.encoders = [Remembering(one.full, 'cpu', half=False) for one in (encoder, other_encoder)]
    examples,steps = (100, 10) if soak else (15, 8)
    run_state_machine_as_test(Folder, settings=settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=not soak, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck)))
    print(f'{examples} sequences of up to {steps} steps')

def test_what_an_update_left_undone_is_done_by_the_next_one(tmp_path, encoder, monkeypatch):
    "Stopped between its last batch and the clearing away, with nothing left to read"
    folder,file = make_notebooks(tmp_path/'nbs', 2, 3),tmp_path/'i.db'
    fresh_content(folder, encoder, file)
    write(folder/'n00.ipynb', ['something else'])
    def stop(*_): raise Killed
    with opened(folder, encoder, file) as index, monkeypatch.context() as patch:
        patch.setattr(NotebookIndex, 'tidy', stop)
        with pytest.raises(Killed): index.update()
    check_same(fresh_content(folder, encoder, file), fresh_content(folder, encoder, tmp_path/'fresh.db'))

class Overtaken(Encoder):
    "An encoder during whose work on a query somebody else writes to the index"
    def encode_query(self, query): self.meanwhile(); return super().encode_query(query)

def test_a_search_sees_one_state_of_the_file(tmp_path, encoder):
    folder,file = make_notebooks(tmp_path/'nbs', 3, 20),tmp_path/'i.db'
    slow,quick = (kind(encoder.full, 'cpu', half=False) for kind in (Overtaken, Encoder))
    slow.meanwhile = lambda: None
    with opened(folder, slow, file) as index, opened(folder, quick, file) as other:
        index.update(); before = answers(index, refresh=False)
        def meanwhile():
            (folder/'n00.ipynb').unlink(missing_ok=True)
            for i in range(2): write(folder/f'n0{i+1}.ipynb', ['something else'])
            other.update()
        slow.meanwhile = meanwhile
        hits = index.search(asked, 10**6, refresh=False)
        assert sorted((hit.path, hit.cell_index, hit.text, round(hit.score, 3)) for hit in hits) == before['hybrid']
        slow.meanwhile = lambda: None
        assert {hit.text for hit in index.search(asked, 10**6, refresh=False)} == {'something else'}

def test_words_that_no_passage_holds_are_not_asked_for():
    assert rare_words({**{f'x{i}': 0 for i in range(100_000)}, 'list': 3}, 5) == ['list']
    assert rare_words(dict(x=0), 5) == []

def test_two_notebooks_of_one_size_and_one_time_may_change_places(tmp_path, encoder):
    folder = tmp_path/'nbs'; folder.mkdir()
    a,b = write(folder/'a.ipynb', ['sort a list']),write(folder/'b.ipynb', ['find a city'])
    for path in (a, b): os.utime(path, ns=(10**18, 10**18))
    with opened(folder, encoder, tmp_path/'i.db') as index:
        index.update()
        a.rename(folder/'c'); b.rename(a); (folder/'c').rename(b)
        assert index.update().changed == 2
    check_same(content(tmp_path/'i.db'), fresh_content(folder, encoder, tmp_path/'fresh.db'))

class Interrupted(Encoder):
    "An encoder during whose work somebody saves a notebook"
    def tokenize(self, texts): self.save(); return super().tokenize(texts)

def test_a_notebook_that_is_half_saved_while_it_is_read_is_read_again(tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs', 200, 1)
    path,busy = folder/'n199.ipynb',Interrupted(encoder.full, 'cpu', half=False)
    whole = path.read_bytes()
    busy.save = lambda: path.write_text('{"cells": [')
    with opened(folder, busy, tmp_path/'i.db') as index:
        index.update()
        busy.save = lambda: None
        path.write_bytes(whole)
        assert not index.update().errors and index.status().passages == 200

def test_a_notebook_whose_permissions_are_given_back_is_read_again(tmp_path, encoder):
    if not os.geteuid(): pytest.skip('root may read everything')
    folder = make_notebooks(tmp_path/'nbs', 1, 2)
    os.chmod(folder/'n00.ipynb', 0)
    with opened(folder, encoder, tmp_path/'i.db') as index:
        assert index.update().skipped == 1
        os.chmod(folder/'n00.ipynb', 0o644)
        assert index.update().skipped == 0

def test_a_notebook_that_failed_for_a_moment_is_tried_again(tmp_path, encoder):
    "Out of file descriptors while it is read: nothing about the file itself changes when that is over"
    folder = make_notebooks(tmp_path/'nbs', 1, 2)
    with opened(folder, encoder, tmp_path/'i.db') as index:
        index.update()
        write(folder/'n00.ipynb', ['something new'])
        limits,held = resource.getrlimit(resource.RLIMIT_NOFILE),[]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        try:
            todo = index.changes()
            with suppress(OSError):
                while True: held.append(open(os.devnull))
            rows = index.read_stale(todo)
        finally:
            for file in held: file.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        index.write_batch(rows, todo.files)
        assert [reason for _,reason in index.errors()] == ['Too many open files']
        report = index.update()
        assert (report.skipped, report.encoded, index.changes().stale) == (0, 1, [])

def test_a_date_that_no_index_can_hold_stops_nothing(tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs', 2, 2)
    os.utime(folder/'n00.ipynb', (10**10, 10**10))
    with opened(folder, encoder, tmp_path/'i.db') as index:
        assert index.update().added == 2 and index.update().unchanged == 2
        assert len(index.search(asked, since='2300-01-01', refresh=False).map(lambda hit: hit.path).unique()) == 1

def test_an_index_follows_its_folder_and_not_the_program(tmp_path, encoder, monkeypatch):
    for name in ('mine', 'other'): make_notebooks(tmp_path/name/'nbs [1]', 2, 2, seed=len(name))
    monkeypatch.chdir(tmp_path/'mine')
    with opened('nbs [[]1]/*.ipynb', encoder, tmp_path/'i.db') as index:
        before = content(tmp_path/'i.db') if index.update() else None
        monkeypatch.chdir(tmp_path/'other')
        hit = index.search(asked, 1)[0]
        assert hit.path.startswith('nbs [1]') and any(index.neighbours(hit.passage))
        check_same(content(tmp_path/'i.db'), before)

def test_every_word_of_a_long_heading_is_found(tmp_path, encoder):
    folder = tmp_path/'nbs'; folder.mkdir()
    words = 'how do we keep a very large table of measurements so that columns are read alone for analysing a zebrafish'
    data = write(folder/'a.ipynb', ['sort']).read_text().replace('## sort 0', f'## {words}')
    (folder/'a.ipynb').write_text(data)
    with opened(folder, encoder, tmp_path/'i.db') as index:
        assert all(index.search(word, 1, 'bm25') for word in words.split())

@pytest.mark.parametrize('look', ['duplicates', 'topics'])
def test_a_long_look_at_all_passages_sees_one_state_of_the_file(tmp_path, encoder, look, monkeypatch):
    "Somebody else takes passages out while vectors are compared"
    import sentence_transformers.util as util
    folder,file = make_notebooks(tmp_path/'nbs', 2, 20),tmp_path/'i.db'
    with opened(folder, encoder, file) as index, opened(folder, encoder, file) as other:
        index.update()
        name = dict(duplicates='paraphrase_mining_embeddings', topics='community_detection')[look]
        compare = getattr(util, name)
        def overtaken(*args, **kwargs):
            found = compare(*args, **kwargs)
            write(folder/'n00.ipynb', ['something else']); other.update()
            return found
        monkeypatch.setattr(util, name, overtaken)
        found = getattr(index, look)(.1)
        assert found and 'something else' not in str(found)

def test_a_passage_is_no_longer_than_its_model_reads(tmp_path, encoder):
    "A model for 64 tokens: the last words of a long cell count as the first ones do"
    import copy
    folder = tmp_path/'nbs'; folder.mkdir()
    write(folder/'a.ipynb', [' '.join(f'word{i} is followed by another.' for i in range(60)) + ' Quantum physics.'])
    full = copy.deepcopy(encoder.full); full.max_seq_length = 64
    with opened(folder, Encoder(full, 'cpu', half=False), tmp_path/'i.db') as index:
        index.update()
        texts = index.passages_at(range(len(index.load().ids))).map(lambda passage: passage.embed_text)
        assert max(map(len, full.tokenizer(list(texts)).input_ids)) <= 64
        assert 'Quantum physics' in texts[-1] and index.max_tokens == 62

# Words in every script

def page(path, *sources):
    cells = [dict(id=f'c{i}', cell_type='markdown', metadata={}, source=source) for i,source in enumerate(sources)]
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    return path

@pytest.mark.parametrize('text,query', [
    ('## 鸟\n\n用numpy计算候鸟迁徙的路线', '候鸟迁徙'), ('## 鸟\n\n用numpy计算候鸟迁徙的路线', 'numpy'), ('## 새\n\n철새이동경로를 계산한다', '이동경로'),
    ('## 鳥\n\n渡り鳥のルートを計算する', '渡り鳥'), ('## นก\n\nคำนวณเส้นทางนกอพยพ', 'นกอพยพ'), ('Poincare\u0301 maps', 'poincaré'), ('The ﬁgures', 'figures'),
    ('Mi\u00adgra\u00adtion', 'migration'), ('ｎｕｍｐｙ arrays', 'numpy'), ('Übungen', 'U\u0308bungen'), ('zero\u200bwidth', 'zerowidth')])
def test_the_same_word_is_found_shown_and_marked_in_every_form(tmp_path, encoder, text, query):
    page(tmp_path/'a.ipynb', text); page(tmp_path/'b.ipynb', 'Nothing of the kind. '*30)
    with opened(tmp_path, encoder, ':memory:') as index:
        hits = index.search(query, 5, 'bm25')
        assert len(hits) == 1 and hits[0].text.splitlines()[-1] == text.splitlines()[-1] # shown as it was written
        for width in (20, 100): assert any(strength for _,strength in hits[0].parts(query, width))
        assert ''.join(part for part,_ in marked(text, query)) == text

def test_most_strings_of_a_text_without_blanks_are_found(tmp_path, encoder):
    text = '候鸟每年秋天从北方飞往南方过冬春天再飞回繁殖地科学家用卫星跟踪它们的路线并且研究气候变化对迁徙时间的影响'
    page(tmp_path/'a.ipynb', text)
    with opened(tmp_path, encoder, ':memory:') as index:
        index.update()
        assert all(index.search(text[i:i+4], 1, 'bm25', refresh=False) for i in range(len(text)-3))

@pytest.mark.parametrize('text', ['候鸟每年秋天从北方飞往南方过冬', '渡り鳥のルートを計算する', '철새이동경로를', 'นกอพยพ', '用numpy计算𠮷野家', '鸟', '候鸟'])
def test_every_single_character_is_found_and_marked_inside_longer_runs(tmp_path, encoder, text):
    from semsearch.core import signs_of
    page(tmp_path/'a.ipynb', f'## One\n\n{text}'); page(tmp_path/'b.ipynb', 'Nothing of the kind, ab a b 一二三. '*30)
    with opened(tmp_path, encoder, ':memory:') as index:
        index.update()
        for sign in signs_of(text):
            for query in (sign, f'"{sign}"', f'{sign} numpyx'):
                hits = index.search(query, 5, 'bm25', refresh=False)
                assert [hit.path[-7:] for hit in hits] == ['a.ipynb'] and hits[0].score > 0, query
            assert {part for part,strength in hits[0].parts(sign, 100) if strength} >= {sign} or sign*2 in text
            assert hits.notes == [] or 'numpyx' in hits.notice
        assert index.search('鱼', 5, 'bm25', refresh=False) == [] and index.search('a', 5, 'bm25', refresh=False)[0].path.endswith('b.ipynb')

def test_a_phrase_without_blanks_is_found_inside_a_run(tmp_path, encoder):
    page(tmp_path/'a.ipynb', '先做数据清洗吧'); page(tmp_path/'b.ipynb', '清洗和数据')
    with opened(tmp_path, encoder, ':memory:') as index:
        hits = index.search('"数据清洗"', 5, 'bm25')
        assert [hit.path[-7:] for hit in hits] == ['a.ipynb'] and hits.notes == []

def test_a_file_of_an_older_version_is_read_again_and_encoded_only_where_it_differs(tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs', 3, 3)
    page(folder/'cjk.ipynb', '计算候鸟迁徙')
    with opened(folder, encoder, tmp_path/'i.db') as index:
        index.update()
        with index.db: # as it was before words were counted in this way
            index.db.execute("delete from info where key='reading'"); index.db.execute("insert into words(words) values('delete-all')")
            for row, in list(index.db.execute('select id from passages')): index.db.execute("insert into words(rowid,text) values(?,'old')", (row,))
    with opened(folder, encoder, tmp_path/'i.db') as index:
        report = index.update()
        assert (report.changed, report.encoded) == (4, 0) and index.search('候鸟', 1, 'bm25', refresh=False)
    check_same(content(tmp_path/'i.db'), fresh_content(folder, encoder, tmp_path/'fresh.db'))
    with opened(folder, encoder, tmp_path/'i.db') as index: assert index.update().unchanged == 4
