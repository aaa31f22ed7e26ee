"What is left of an index when the power is cut: every write, sync and deletion is recorded, and disks are made from them."
import random, shutil
from contextlib import contextmanager
from pathlib import Path
import apsw, pytest
from helpers import check_same, content, fresh_content, make_notebooks, opened, prose, soak, write
from semsearch.index import NotebookIndex
from semsearch.cache import ScoreCache

# A disk that remembers

class Disk(apsw.VFS):
    "The real disk, and a log of what was done to it: (what, file, and for a write its place and bytes)"
    def __init__(self):
        self.log,self.on = [],True
        super().__init__('recorded', 'unix')
    def note(self, what, name, *args):
        if self.on: self.log.append((what, Path(str(name)).name, *args))
    def xOpen(self, name, flags): return Recorded(self, name, flags)
    def xDelete(self, name, sync): self.note('delete', name); super().xDelete(name, sync)

class Recorded(apsw.VFSFile):
    "One file of it"
    def __init__(self, disk, name, flags):
        self.disk,self.name = disk,name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__('unix', name, flags)
    def xWrite(self, data, offset): self.disk.note('write', self.name, offset, bytes(data)); super().xWrite(data, offset)
    def xTruncate(self, size): self.disk.note('truncate', self.name, size); super().xTruncate(size)
    def xSync(self, flags): super().xSync(flags); self.disk.note('sync', self.name)

@contextmanager
def recorded():
    "Let SQLite write to such a disk"
    disk = Disk()
    apsw.set_default_vfs('recorded')
    try: yield disk
    finally: disk.on = False; apsw.set_default_vfs('unix')

def changed(data, entry):
    "A file's bytes after one write or truncation"
    if entry[0] == 'truncate': return data[:entry[2]] + bytes(max(0, entry[2]-len(data)))
    place,new = entry[2:]
    data = data + bytes(max(0, place-len(data)))
    return data[:place] + new + data[place+len(new):]

def torn(entry, rng):
    "What a disk may keep of a write that was never synced: any of its sectors"
    if entry[0] == 'truncate': return [entry] if rng.random() < .5 else []
    return [('write', entry[1], entry[2]+at, entry[3][at:at+512]) for at in range(0, len(entry[3]), 512) if rng.random() < .5]

def left_over(log, how, rng):
    "The files after a power cut: what was synced, and of the rest all, none, or any sectors"
    synced,pending = {},{}
    for entry in log:
        what,name = entry[:2]
        if what == 'delete': synced.pop(name, None); pending.pop(name, None)
        elif what != 'sync': pending.setdefault(name, []).append(entry)
        else:
            for one in pending.pop(name, []): synced[name] = changed(synced.get(name, b''), one)
    for name,entries in pending.items():
        for entry in entries:
            kept = torn(entry, rng) if how == 'some' else [entry]*(how == 'all')
            for one in kept: synced[name] = changed(synced.get(name, b''), one)
    return synced

# The index

def story(folder, encoder, file, disk, monkeypatch):
    "Updates of an edited folder; the content after each transaction, and how far the log was when it was done"
    states,rng = [],random.Random(6)
    def state(index):
        disk.on = False
        states.append((len(disk.log), content(file)))
        disk.on = True
    def noted(name):
        method = getattr(NotebookIndex, name)
        def step(self, *args, **kwargs):
            found = method(self, *args, **kwargs)
            if self.file == str(file): state(self)
            return found
        monkeypatch.setattr(NotebookIndex, name, step)
    for name in ('write_batch', 'tidy', 'keep'): noted(name)
    for i in range(4):
        with opened(folder, encoder, file) as index:
            state(index)
            index.db.wal_autocheckpoint([1000, 10, 40, 1000][i])
            for j in range(3):
                index.update()
                write(folder/f'n{j:02}.ipynb', [prose(rng) for _ in range(12)])
                write(folder/f'new{i}{j}.ipynb', [prose(rng) for _ in range(8)])
                paths = sorted(folder.glob('n*.ipynb'))
                paths[3].rename(folder/f'n{i}{j}-moved.ipynb'); paths[4].unlink()
            index.update()
    return states

@pytest.mark.parametrize('how', ['none', 'all', 'some'])
def test_a_power_cut_loses_nothing_that_was_stored(tmp_path, encoder, monkeypatch, how):
    folder,file,rng = make_notebooks(tmp_path/'nbs', 6, 12),tmp_path/'i.db',random.Random(how)
    with recorded() as disk: states = story(folder, encoder, file, disk, monkeypatch)
    monkeypatch.undo()
    expected = fresh_content(folder, encoder, tmp_path/'fresh.db')
    check_same(states[-1][1], expected)
    moments = [i+1 for i,entry in enumerate(disk.log) if entry[0] != 'write' or rng.random() < (.5 if soak else .05)]
    if not soak: moments = rng.sample(moments, 15)
    early,hot = 0,0
    for at in moments:
        files = left_over(disk.log[:at], how, rng)
        place = tmp_path/f'cut{at}'; place.mkdir()
        for name,data in files.items(): (place/name).write_bytes(data)
        with opened(folder, encoder, place/'i.db') as index:
            found = content(place/'i.db')
            done = sum(when <= at for when,_ in states)
            legal = [state for _,state in states[max(0, done-1):done+1]]
            assert found in legal, f'{how}: cut after {at} of {len(disk.log)} steps'
            early,hot = early+(done == 0),hot+('i.db-wal' in files)
            index.update()
        check_same(content(place/'i.db'), expected)
        shutil.rmtree(place)
    print(f'{how}: {len(moments)} power cuts at {len(disk.log)} writes, syncs and deletions; {len(states)} transactions; '
          f'{early} cuts before the first, {hot} with a log to replay')

def test_the_disk_itself_would_show_a_missing_sync(tmp_path):
    "The same cut, with syncs switched off: what was told to be stored is not there"
    def survives(level):
        with recorded() as disk:
            db = apsw.Connection(str(tmp_path/f'{level}.db'))
            db.pragma('journal_mode', 'wal'); db.pragma('synchronous', level)
            db.execute('create table t(a)'); db.execute('insert into t values(1)')
            files = left_over(list(disk.log), 'none', None)
            db.close()
        place = tmp_path/f'cut{level}'; place.mkdir()
        for name,data in files.items(): (place/name).write_bytes(data)
        cut = apsw.Connection(str(place/f'{level}.db'))
        return bool(cut.execute("select count(*) from sqlite_master").get and cut.execute('select count(*) from t').get)
    assert survives('full') and not survives('off')

def test_a_power_cut_leaves_scores_that_were_remembered(tmp_path):
    with recorded() as disk:
        cache,done = ScoreCache(tmp_path/'s.db'),[]
        for i in range(20): cache.put({b'%016d' % (20*i+j): float(i) for j in range(20)}); done.append(len(disk.log))
        cache.db.close()
    rng = random.Random(8)
    for at in rng.sample(range(1, len(disk.log)), 60):
        for how in ('none', 'all', 'some'):
            place = tmp_path/f'{at}{how}'; place.mkdir()
            for name,data in left_over(disk.log[:at], how, rng).items(): (place/name).write_bytes(data)
            found = ScoreCache(place/'s.db')
            assert found.db.pragma('integrity_check') == 'ok'
            kept = sum(when <= at for when in done)
            assert len(found) in (20*kept, 20*kept+20)
            found.db.close(); shutil.rmtree(place)
