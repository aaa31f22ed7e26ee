"What a stranger may put before semsearch: notebooks, names, models and index files made to harm, old or odd."
import errno, gzip, json, os, resource, shutil, subprocess, sys, tempfile, time
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
import apsw, pytest
from helpers import (answers, can_fork, check_same, content, fresh_content, heard, make_notebooks, opened, start,
                     tiny_encoder, write)
from semsearch.behind import alone, leaving_word
from semsearch.cache import ScoreCache
from semsearch.cli import remove_index
from semsearch.core import Hit, Hits, Passage
from semsearch.index import NotebookIndex
from semsearch.index import matches
from semsearch.loader import Rules, covers, load_passages, read_rule
from semsearch.shelf import is_gone
from semsearch.store import IndexFileError, format_version, upgrades
from semsearch.notebook import read_notebook, slim
from semsearch.passages import split_notebook
from test_loader import needs_proc, unprintable

def cells(path, *sources, kind='markdown'):
    "Save a notebook with these cells"
    rows = [dict(id=f'c{i}', cell_type=kind, metadata={}, source=source) for i,source in enumerate(sources)]
    path.write_text(json.dumps(dict(cells=rows, metadata={}, nbformat=4, nbformat_minor=5)))
    return path

def shown(*calls):
    "What the command line prints for each of the calls, one process for all of them"
    code = ('import contextlib,json,sys; from semsearch.cli import main\n'
            'for args in json.loads(sys.stdin.read()):\n'
            '    sys.argv = ["semsearch", *args]\n'
            '    with contextlib.suppress(SystemExit): main()\n'
            '    print("\\0", end="", flush=True)')
    done = subprocess.run([sys.executable, '-c', code], input=json.dumps(calls).encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout.decode().split('\0')

# What is printed

def test_no_escape_sequence_reaches_a_terminal(tmp_path):
    nbs = tmp_path/'nbs'; nbs.mkdir()
    attack = '\x1b[31mred \x1b]0;owned\x07 \x9b2J &#x9d;0;t&#x9c; &#x1b;[2J \u202etfel'
    cells(nbs/f'{attack[:13]}\x9b1m.ipynb'.replace('/', ''), f'# Sort {attack}', f'## A list {attack}\nhow to sort a list {attack}')
    cells(nbs/'two\nlines.ipynb', 'sort a list'); cells(nbs/os.fsdecode(b'caf\xe9.ipynb'), 'sort a list')
    (nbs/'bad\x1b[2J.ipynb').write_text('{'); (nbs/'title.ipynb').write_text('{"cells": 7, "x": "\x1b"}')
    common = [str(nbs), '--index', str(tmp_path/'i.db')]
    calls = [['sort a list', *common], ['sort a list', *common, '--json'], ['sort a list', *common, '--jsonl', '--no-rerank'],
             ['sort a list', *common, '-C', '1', '--explain', '--no-rerank'], ['status', *common], ['index', *common],
             ['sort a list', *common, '--no-rerank', '--threshold', '1'], ['sort', str(nbs/'no\x1b[2J')]]
    *said,end = shown(*calls)
    assert len(said) == len(calls) and not end
    for call,text in zip(calls, said):
        assert text and not unprintable.search(text), (call, text)
        assert 'Traceback' not in text, text
    assert 'caf\\xe9.ipynb: the name of the file is not UTF-8' in said[4]

@pytest.mark.parametrize('where', ['info', 'passages'])
def test_no_escape_sequence_of_an_index_file_reaches_a_terminal(tmp_path, where):
    nbs,file = make_notebooks(tmp_path/'nbs', 1, 2),tmp_path/'i.db'
    common = [str(nbs), '--index', str(file)]
    fresh_content(nbs, None, file)
    with apsw.Connection(str(file)) as db:
        if where == 'info': db.execute("update info set value=char(27)||'[2J'||value where key='model'")
        else: db.execute("update passages set title=char(27)||'[2J', text=char(155)||'2J sort'||char(8238), headings='[\"\\u001b[2J\"]'")
    said = ''.join(shown(['sort', *common, '--no-rerank', '-C', '1'], ['sort', *common, '--no-rerank', '--json'], ['status', *common]))
    assert said and not unprintable.search(said) and 'Traceback' not in said

class Tags(HTMLParser):
    "The tags of some HTML, with their attributes, and its text"
    def __init__(self, text): super().__init__(); self.found,self.text = [],''; self.feed(text)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))
    def handle_data(self, data): self.text += data

def test_no_markup_of_a_notebook_reaches_jupyter():
    attack = '<script>x()</script> "><img src=x onerror=x()> </pre></details><iframe src=javascript:x()> &lt;b&gt; sort'
    hits = Hits([Hit(Passage(attack, attack, (attack,), 0, attack, 'code', attack, 0), .5, 1, {attack: .5})], query=attack)
    plain = Hits([Hit(Passage('a.ipynb', 'a', ('a',), 0, 'c', 'code', 'sort', 0), .5, 1, dict(dense=.5))], query='sort')
    html = Tags(hits._repr_html_())
    assert {tag for tag,_ in html.found} <= {tag for tag,_ in Tags(plain._repr_html_()).found}
    assert attack in html.text and not html.text.count('navigator')
    for tag,attrs in html.found:
        assert {name for name in attrs if name.startswith('on')} <= {'onclick'} and attrs.get('onclick', '').count('x()') == 0
        assert ':' not in attrs.get('href', '')

# Too much of something

def bomb(name, n):
    "Text that is harmless to a reader, and not to every regular expression"
    return dict(breaks='\n'*n, blanks='# a'+' '*n+'b {', tabs='\t'*n, links='['*n, images='![a'*(n//3), comments='<!--'*(n//4), tags='<a '*(n//3),
                tables='| '*(n//2)+'x', entity='&#'+'1'*n, directives='#|'+'\n'*n, facts='#| a b'+' '*n+'c', front='---\ntitle: a'+' '*n+'b\n',
                magics='%\n'*(n//2), brackets='['*n+']'*n, quotes='"'*n, fences='`'*n, tildes='~~~ '*(n//4),
                ticks='<`a ``b ```c '*(n//13), titles='[a](b "'*(n//7), badges='[![a](b)'*(n//8), headings='# a\n'*(n//4), lines=' \n'*(n//2))[name]

@pytest.mark.parametrize('kind', ['markdown', 'code'])
@pytest.mark.parametrize('name', 'breaks blanks tabs links images comments tags tables entity directives facts front magics brackets quotes '
                                 'fences tildes ticks titles badges headings lines'.split())
def test_the_work_grows_with_the_text_and_not_with_its_square(tmp_path, name, kind):
    "Ten times the text may cost fifty times the work; with its square it would be a hundred times"
    def spent(n):
        notebook = read_notebook(cells(tmp_path/'n.ipynb', bomb(name, n), kind=kind))
        begin = time.process_time(); split_notebook(notebook)
        return time.process_time()-begin
    spent(1000)
    assert spent(100_000) < 50*max(.05, min(spent(10_000) for _ in range(3)))

def spent(work, *args):
    begin = time.process_time(); work(*args)
    return time.process_time()-begin

def grows(work, inputs):
    "Ten times the input may cost sixty times the work on a busy machine; with its square it would be a hundred times"
    first,*others = [min(spent(work, one) for _ in range(3)) for one in inputs]
    return [later/max(.01, before) for before,later in zip([first, *others], others)]

def test_patterns_cost_no_more_with_many_stars():
    "With a regular expression for the whole path, each further star multiplies the time"
    def tried(shape):
        name,pattern = 'a'*shape[1],'*a'*shape[0] + '*c'
        assert not covers(read_rule(pattern), name) and Rules([pattern]).verdict(name) is None and not matches(name, [pattern, f'**/{pattern}/b'])
    assert max(grows(tried, [(stars, 2000) for stars in (2, 20, 200)]) + grows(tried, [(20, length) for length in (250, 2500, 25_000)])) < 60
    deep = '/'.join('a'*500)
    assert not covers(read_rule('**/a/'*20 + 'b'), deep) and covers(read_rule('**/a/'*20 + 'a'), deep)

@pytest.mark.parametrize('line', ['name{}', '/deep/er/name{}.ipynb', 'folder{}/', '!name{}'])
def test_a_long_gitignore_costs_what_its_length_says(line):
    lists = [[line.format(i) for i in range(count)] for count in (500, 5000, 50_000)]
    assert max(grows(Rules, lists)) < 60
    def ask(rules): # as often for each: a plain name is looked up
        for i in range(1000): rules.verdict(f'some/where/{i}.ipynb')
    assert max(grows(ask, map(Rules, lists))) < 3

def test_a_long_cell_is_looked_through_once(tmp_path):
    for mark in ('x = a | b\n', '%time x = 1\n', '# | note\ny = 2\n'):
        def cut(lines): split_notebook(read_notebook(cells(tmp_path/'n.ipynb', mark*lines, kind='code')))
        assert max(grows(cut, (200, 2000, 20_000))) < 60, mark

def test_outputs_within_outputs_are_looked_through_once():
    def nested(depth): return b'{"outputs":[1,' * depth + b']}' * depth
    assert slim(nested(5)) == nested(5) and slim(nested(5), most=20) == b'{"outputs":[]}'
    assert max(grows(slim, map(nested, (200, 2000, 20_000)))) < 60

@needs_proc
def test_a_file_of_two_gigabytes_and_a_bomb_are_named_in_bounded_memory(tmp_path):
    with open(tmp_path/'huge.ipynb', 'wb') as file: file.truncate(2 << 30)
    (tmp_path/'deep.ipynb').write_text('['*5_000_000)
    (tmp_path/'same.ipynb').write_text('{"cells":[' + ','.join(['{}']*500_000) + ']}')
    code = ('import sys,re; from semsearch.loader import *; found = [try_read(f"{sys.argv[1]}/{name}.ipynb") for name in ("huge", "deep", "same")]; '
            'from semsearch.store import file_digest; file_digest(f"{sys.argv[1]}/huge.ipynb"); '
            r'print(found[0].kind, found[1].kind, len(found[2].cells), int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) >> 10)')
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.startswith('too large json 500000 '), done
    assert int(done.stdout.split()[-1]) < 1200

# A failed look is not an empty folder

class Failing:
    "The system's own calls, which fail for paths that end in a name"
    def __init__(self, monkeypatch, number, *calls):
        self.number,self.names = number,()
        for name in calls: monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))
    def wrapped(self, call):
        def called(path='.', *args, **kwargs):
            if isinstance(path, (str, os.PathLike)) and str(path).endswith(self.names or ('\0',)): raise OSError(self.number, os.strerror(self.number), str(path))
            return call(path, *args, **kwargs)
        return called

@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ENOMEM])
@pytest.mark.parametrize('asked', ['', '/sub/*.ipynb', '/**/*.ipynb'])
def test_a_failed_look_is_not_an_empty_folder(tmp_path, encoder, monkeypatch, number, asked):
    folder = make_notebooks(tmp_path/'nbs', 0 if 'sub' in asked else 2, 3); make_notebooks(folder/'sub', 3, 3, seed=1)
    system = Failing(monkeypatch, number, 'scandir', 'listdir')
    with opened(f'{folder}{asked}', encoder, tmp_path/'i.db') as index:
        index.update(); before = answers(index, refresh=False)
        system.names = '/sub',
        done = index.update()
        assert (done.removed, done.skipped) == (0, 1) and answers(index, refresh=False) == before
        assert done.errors == [(str(folder/'sub'), os.strerror(number))]
        system.names = ()
        (folder/'sub'/'n00.ipynb').unlink()
        assert index.update().removed == 2 and not index.errors() # the notebook, and the note that the folder was not seen

def test_a_notebook_that_cannot_be_read_for_a_moment_keeps_what_was_stored(tmp_path, encoder, monkeypatch):
    folder = make_notebooks(tmp_path/'nbs', 3, 3)
    system = Failing(monkeypatch, errno.ESTALE, 'stat', 'scandir')
    with opened(folder, encoder, tmp_path/'i.db') as index:
        index.update(); before = answers(index, refresh=False)
        system.names = 'n01.ipynb','n02.ipynb'
        done = index.update()
        assert (done.removed, done.skipped) == (0, 2) and answers(index, refresh=False) == before
        assert index.update().skipped == 2 # and still
        system.names = ()
        assert not index.update().errors and answers(index, refresh=False) == before
        (folder/'n01.ipynb').unlink(); (folder/'n01.ipynb').mkdir() # this can be seen well, and it is another thing
        assert index.update().skipped == 1 and not any('n01' in str(hit) for mode in answers(index) for hit in answers(index)[mode])

def test_no_more_files_may_be_opened_and_nothing_is_forgotten(tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs'/'deep', 3, 2).parent
    with opened(folder, encoder, tmp_path/'i.db') as index:
        index.update()
        limits,held = resource.getrlimit(resource.RLIMIT_NOFILE),[]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        try:
            with suppress(OSError):
                while True: held.append(open(os.devnull))
            todo = index.changes()
        finally:
            for file in held: file.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert not todo.gone and [error.reason for error in todo.errors.values()] == ['Too many open files']

def test_a_path_that_is_too_long_for_the_system_is_named(tmp_path):
    folder,there = tmp_path/'nbs',os.open(tmp_path, os.O_RDONLY)
    cells(make_notebooks(folder, 0, 0)/'a.ipynb', '# A')
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(40): os.mkdir('d'*130); os.chdir('d'*130)
        Path('b.ipynb').write_text('{}')
    finally: os.chdir(here); os.close(there)
    found = load_passages(folder)
    assert found.attrgot('title') == ['A'] and found.errors.attrgot('reason') == ['File name too long']
    assert len(found.errors[0].path) > 4000

def test_an_edit_with_the_stamp_of_the_last_look_is_seen(tmp_path, encoder):
    "As on a file system that counts in steps of two seconds, or after the clock was set back"
    path = cells(tmp_path/'a.ipynb', 'sort a list')
    alike = 'update notebooks set mtime=?, ctime=iif(ctime is null, null, ?)'
    with opened(tmp_path, encoder, tmp_path/'i.db') as index:
        index.update()
        info = cells(path, 'find a city').stat()
        with index.db: index.db.execute(alike, (info.st_mtime_ns, info.st_ctime_ns))
        assert index.update().changed == 1 and index.search('city', 1, refresh=False)[0].text == 'find a city'
        assert not index.changes().stale

def test_the_shelf_takes_no_silent_disk_for_a_missing_one(tmp_path, monkeypatch):
    system = Failing(monkeypatch, errno.EIO, 'lstat', 'stat')
    assert [is_gone(str(tmp_path/name)) for name in ('', 'lost', '*.ipynb', 'lost/*.ipynb')] == [False, True, False, True]
    system.names = '/lost',
    assert not is_gone(str(tmp_path/'lost'))

# Who may read what is kept

def modes_of(*paths): return {path.name: oct(path.stat().st_mode & 0o777) for path in paths}

def test_an_index_is_readable_for_its_owner_alone(tmp_path, encoder, monkeypatch):
    monkeypatch.delenv('SEMSEARCH_INDEX_DIR'); monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    folder,usual = make_notebooks(tmp_path/'nbs', 1, 2),tmp_path/'cache'/'semsearch'
    was = os.umask(0o022)
    try:
        with opened(folder, encoder, None) as index:
            index.update()
            with alone(index.file): pass
            with suppress(RuntimeError), leaving_word(index.file): os.chmod(usual, 0o755); raise RuntimeError('trouble')
            ScoreCache().db.close()
            kept = sorted(usual.iterdir())
            assert {path.suffix for path in kept} >= {'.db', '.db-wal', '.db-shm', '.lock', '.trouble'} and usual/'scores.db' in kept
            assert set(modes_of(*kept).values()) == {'0o600'}
            for path in kept: path.chmod(0o644)
            with opened(folder, encoder, None): assert set(modes_of(*usual.glob('nbs*')).values()) == {'0o600'}
            assert modes_of(usual) == dict(semsearch='0o700')
        with opened(folder, encoder, tmp_path/'own'/'i.db'): assert modes_of(tmp_path/'own') == dict(own='0o700')
    finally: os.umask(was)

def test_a_folder_that_somebody_chose_and_a_file_of_another_program_keep_their_modes(tmp_path, encoder):
    folder,file = make_notebooks(tmp_path/'nbs', 1, 2),tmp_path/'chosen'/'i.db'
    file.parent.mkdir(); file.parent.chmod(0o755)
    with apsw.Connection(str(tmp_path/'theirs.db')) as db: db.execute('create table notes(text)')
    (tmp_path/'theirs.db').chmod(0o644)
    with pytest.raises(IndexFileError): NotebookIndex(folder, encoder, tmp_path/'theirs.db')
    with opened(folder, encoder, file): assert modes_of(file.parent, file, tmp_path/'theirs.db') == {'chosen': '0o755', 'i.db': '0o600', 'theirs.db': '0o644'}

@pytest.mark.parametrize('asked', ['nbs', 'nbs/*.ipynb', 'nbs/**/*.ipynb'])
def test_a_link_out_of_the_folders_is_named_and_not_read(tmp_path, encoder, asked):
    folder = make_notebooks(tmp_path/'nbs', 2, 2); make_notebooks(tmp_path/'away', 1, 2, seed=3); make_notebooks(folder/'sub', 1, 2, seed=4)
    cells(tmp_path/'away'/'secret.ipynb', 'swordfish')
    (folder/'out.ipynb').symlink_to(tmp_path/'away'/'secret.ipynb'); (folder/'linked').symlink_to(tmp_path/'away')
    (folder/'in.ipynb').symlink_to(folder/'sub'/'n00.ipynb'); (folder/'around').symlink_to(folder/'sub')
    def found(*paths):
        with opened([str(tmp_path/path) for path in paths], encoder, tmp_path/f'{len(paths)}.db') as index:
            errors = index.update().errors
            return 'swordfish' in str(answers(index)),{Path(path).name for path,_ in errors}
    def named(*paths): return not found(*paths)[0] and found(*paths)[1]
    assert named(asked) >= {'out.ipynb'} and ('*' in asked or named(asked) == {'out.ipynb', 'linked'})
    read,left = found(asked, 'nbs/out.ipynb') # the link itself is named
    assert read and 'out.ipynb' not in left and ('*' in asked or left == {'linked'})
    assert found(asked, 'away', 'nbs/out.ipynb') == (True, set())

def test_what_an_older_version_read_through_a_link_is_taken_out(tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs', 1, 2)
    cells(tmp_path/'secret.ipynb', 'swordfish'); (folder/'out.ipynb').symlink_to(tmp_path/'secret.ipynb')
    with opened([folder, tmp_path/'secret.ipynb'], encoder, tmp_path/'i.db') as index: # whose folders hold both
        index.update(); assert 'swordfish' in str(answers(index))
    with opened(folder, encoder, tmp_path/'i.db') as index:
        assert index.update().skipped == 1 and 'swordfish' not in str(answers(index))

# Time, permissions, and files of older versions

def test_a_clock_that_is_set_back_hides_no_edit(tmp_path, encoder):
    folder = make_notebooks(tmp_path/'nbs', 2, 3)
    path = folder/'n00.ipynb'
    with opened(folder, encoder, tmp_path/'i.db') as index:
        index.update()
        for year in (1971, 2038, 2000):
            write(path, [f'written in {year}'])
            os.utime(path, ((year-1970)*31_557_600,)*2)
            assert index.update().changed == 1
            assert any(str(year) in hit.text for hit in index.search(f'written in {year}', 1, refresh=False))
        os.utime(path, (-10**9, -10**9))  # before 1970
        assert index.update().changed == 0
    check_same(content(tmp_path/'i.db'), fresh_content(folder, encoder, tmp_path/'fresh.db'))

def without_rights(pipe, folder, model, file):
    "Lose the right to read a notebook, a folder, and the index, one after the other, as somebody who is not root"
    encoder,found = tiny_encoder(model),[]
    if not os.geteuid():
        (Path(folder)/'broken.ipynb').write_text('{')
        with opened(folder, encoder, ':memory:') as index: index.update(); answers(index)  # imports what root alone may read
        (Path(folder)/'broken.ipynb').unlink()
        for path in [folder, *Path(folder).rglob('*'), Path(file).parent]: os.chown(path, 65534, 65534)
        os.seteuid(65534)
    with opened(folder, encoder, file) as index:
        index.update(); before = answers(index, refresh=False)
        for path in (Path(folder)/'n00.ipynb', Path(folder)/'sub'):
            os.chmod(path, 0)
            done = index.update()
            found.append([(Path(name).name, reason) for name,reason in done.errors])
            os.chmod(path, 0o755)
            assert not index.update().errors and answers(index, refresh=False) == before
    os.chmod(file, 0)
    try: NotebookIndex(folder, encoder, file)
    except IndexFileError as error: found.append(str(error))
    os.chmod(file, 0o644)
    with opened(folder, encoder, file) as index: assert answers(index, refresh=False) == before
    return found

@pytest.mark.skipif(not can_fork, reason='processes are forked')
def test_what_may_no_longer_be_read_is_named_and_comes_back(processes, model):
    place = Path(tempfile.mkdtemp()); os.chmod(place, 0o777)
    folder = make_notebooks(place/'nbs', 3, 4); make_notebooks(folder/'sub', 2, 4, seed=1)
    (place/'index').mkdir()
    shutil.copytree(model, place/'model')
    for path in (place/'model').rglob('*'): os.chmod(path, 0o755)
    child,pipe = start(processes, without_rights, str(folder), str(place/'model'), str(place/'index'/'i.db'))
    good,found = heard(pipe); child.join()
    shutil.rmtree(place)
    assert good, found
    notebook,inside,index = found
    assert len(notebook) == 1 and notebook[0][0] == 'n00.ipynb' and 'ermission' in notebook[0][1]
    assert len(inside) == 1 and inside[0][0] == 'sub' and 'ermission' in inside[0][1] and 'i.db' in index

formats = Path(__file__).parent/'fixtures/indexes'

def unpacked(version, place):
    "The index file that a format was left with"
    file = place/f'format{version}.db'
    file.write_bytes(gzip.decompress((formats/f'{file.name}.gz').read_bytes()))
    return file

def same_notebooks(folder):
    "The notebooks that the kept indexes were made of"
    folder.mkdir()
    cells(folder/'lists.ipynb', '# Lists\n\nHow to sort a list of names.')
    cells(folder/'web.ipynb', '# Web\n\nSearch the web for a page.')
    return folder

@pytest.mark.parametrize('version', range(1, format_version+1))
def test_an_index_of_every_format_is_read_or_refused_and_can_be_made_again(tmp_path, version):
    "Every format that was ever released is kept; a new one needs a file here"
    file,folder = unpacked(version, tmp_path),same_notebooks(tmp_path/'nbs')
    data = file.read_bytes()
    if version not in (format_version, *upgrades):
        with pytest.raises(IndexFileError, match=f'has format {version}.*--rebuild'): NotebookIndex(folder, index=file)
        assert file.read_bytes() == data
        said, = shown(['index', str(folder), '--index', str(file), '--rebuild'])[:-1]
        assert '2 added' in said
    with opened(folder, None, file) as index:
        if version in (format_version, *upgrades):
            kept = index.search('surf the internet', 1, 'dense', refresh=False)[0]
            assert kept.path.endswith('web.ipynb') and kept.text == 'Search the web for a page.'
            assert index.update().encoded == 0  # the kept vectors are those that the model gives today
            assert index.status().encoded == 2 and index.db.pragma('user_version') == format_version
        assert index.search('surf the internet', 1)[0].path.endswith('web.ipynb')

def open_when_told(pipe, folder, model, file):
    "What one of several programs meets that open an old file, clear it, and make it again"
    encoder = tiny_encoder(model)
    pipe.send('ready'); pipe.recv()
    try: NotebookIndex(folder, encoder, file)
    except IndexFileError: remove_index(file)
    for _ in range(20):
        with suppress(IndexFileError), opened(folder, encoder, file) as index: return index.update().skipped == 0
    return False

@pytest.mark.skipif(not can_fork, reason='processes are forked')
def test_several_programs_may_upgrade_an_index_at_once(tmp_path, processes, model, encoder):
    file,folder = unpacked(1, tmp_path),same_notebooks(tmp_path/'nbs')
    running = [start(processes, open_when_told, str(folder), model, str(file)) for _ in range(6)]
    for _,pipe in running: assert heard(pipe) == 'ready'
    for _,pipe in running: pipe.send('go')
    assert [heard(pipe) for _,pipe in running] == [(True, True)]*6
    for child,_ in running: child.join()
    check_same(fresh_content(folder, encoder, file), fresh_content(folder, encoder, tmp_path/'fresh.db'))

# The guards that tools/mutate.py takes out

def test_each_guard_is_in_the_code_once_and_has_its_test():
    sys.path.insert(0, str(Path(__file__).parent.parent/'tools'))
    from mutate import guards, root
    for name,(file,code,other,test) in guards.items():
        assert (root/'semsearch'/file).read_text().count(code) == 1, name
        file,_,function = test.partition('::')
        assert f'def {function}(' in (root/'tests'/file).read_text(), name
