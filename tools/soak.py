"""Edit, search and update for half an hour, and measure what grows.

    python tools/soak.py FOLDER WORK [--minutes 30] [--notebooks 200]

FOLDER holds real notebooks, of which some are copied into WORK. At the end a second index is made from nothing, and has to hold
and to answer the same."""
import argparse, json, os, random, re, shutil, sys, time
from pathlib import Path
import numpy as np
from fastcore.foundation import L
root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'tests'))
from helpers import check_same, content
from semsearch.index import NotebookIndex
from semsearch.loader import find_notebooks, load_passages
from semsearch.search import NotebookSearch

def memory():
    "MB in use, and the most so far, of this process"
    status = Path('/proc/self/status').read_text()
    return {name: int(re.search(rf'{key}:\s*(\d+)', status)[1])//1024 for name,key in dict(mb='VmRSS', peak_mb='VmHWM').items()}

def handles(): return len(os.listdir('/proc/self/fd'))

def on_disk(file): return sum(os.path.getsize(file+end) for end in ('', '-wal', '-shm') if os.path.exists(file+end))

def choose(folder, count, rng):
    "Notebooks of up to 60 kB, every part of the folder alike"
    found = find_notebooks(folder).filter(lambda path: 2000 < path.stat().st_size < 60_000)
    return L(rng.sample(list(found), count))

def changed(data, rng):
    "The notebook with one cell written anew, taken out or put twice"
    nb = json.loads(data)
    cells,kind = nb.get('cells') or [],rng.randrange(3)
    if not cells: return data
    at = rng.randrange(len(cells))
    if kind == 0: cells[at]['source'] = ' '.join(rng.sample(str(cells[at].get('source')).split() + ['edited', str(rng.random())], 2))
    elif kind == 1: cells.pop(at)
    else: cells.insert(at, dict(cells[rng.randrange(len(cells))], id=f'c{rng.randrange(10**9)}'))
    return json.dumps(nb).encode()

def edit(folder, spare, rng, i, count):
    "One change of the kind that a person makes"
    paths = sorted(folder.glob('*.ipynb'))
    path,kind = rng.choice(paths),rng.choice('change change change add delete move break repair touch'.split())
    if kind == 'change':
        try: path.write_bytes(changed(path.read_bytes(), rng))
        except ValueError: pass
    elif kind == 'add' and len(paths) < 1.1*count: shutil.copy(rng.choice(spare), folder/f'new{i}.ipynb')
    elif kind == 'delete' and len(paths) > .9*count: path.unlink()
    elif kind == 'move': path.rename(folder/f'moved{i}.ipynb')
    elif kind == 'break': path.write_bytes(path.read_bytes()[:-rng.randrange(1, 900)])
    elif kind == 'repair': path.write_bytes(rng.choice(spare).read_bytes())
    elif kind == 'touch': os.utime(path)
    return kind

def questions(passages): return list(passages.map(lambda p: (p.headings or (p.title,))[-1]).unique().filter(str.strip))

def answers(index, queries):
    "What an index says, in an order that does not depend on row numbers"
    def rows(hits): return sorted((round(hit.score, 3), hit.path, hit.cell_index, hit.text) for hit in hits)
    return [rows(index.search(query, 10**6, mode, refresh=False)) for query in queries for mode in ('bm25', 'dense', 'hybrid')]

def alike(mine, theirs):
    "Do two indexes give every passage the same score, to a thousandth?"
    def scores(rows): return {row[1:]: row[0] for row in rows}
    return all(abs(a.get(key, 0)-b.get(key, 0)) < 2.1e-3 for a,b in zip(map(scores, mine), map(scores, theirs)) for key in a | b)

def main(folder, work, minutes, count):
    rng,work = random.Random(20),Path(work)
    nbs,file = work/'nbs',str(work/'soak.db')
    nbs.mkdir(parents=True)
    paths = choose(folder, count+60, rng)
    for i,path in enumerate(paths[:count]): shutil.copy(path, nbs/f'n{i:03}.ipynb')
    start,searches,spare = time.time(),NotebookSearch(nbs, index=file, cache=work/'scores.db'),paths[count:]
    late,reader = searches.ranker.rankers['late'],searches.ranker.rankers['reader']
    late.remember = reader.full[0].remember = 100 # token vectors fill their memory at once: what grows after that is a fault
    def note(**figures): print(json.dumps(dict(seconds=round(time.time()-start), **figures, **memory(), handles=handles(),
                                               index_mb=round(on_disk(file)/1e6, 2))), flush=True)
    first = searches.index.update()
    queries = questions(load_passages(nbs))
    note(did='indexed', notebooks=count, passages=searches.index.status().passages)
    end,due,edits,asked,encoded,round_ = time.time()+60*minutes,time.time(),0,0,0,0
    while time.time() < end:
        for _ in range(rng.randrange(1, 4)): edit(nbs, spare, rng, edits, count); edits += 1
        encoded += searches.index.update().encoded
        for mode in ('bm25', 'dense', 'hybrid'): searches(rng.choice(queries), rng.choice([1, 10, 1000]), rerank=False, mode=mode)
        searches(rng.choice(queries), 10, candidates=10)
        asked += 4; round_ += 1
        if time.time() < due: continue
        due += 120
        note(rounds=round_, edits=edits, searches=asked, encoded=encoded, passages=searches.index.status().passages,
             skipped=len(searches.index.errors()))
    searches.index.update()
    note(did='stopped', rounds=round_, edits=edits, searches=asked, encoded=encoded)
    rebuilt = NotebookIndex(nbs, index=work/'rebuilt.db')
    rebuilt.update()
    sample = rng.sample(queries, min(50, len(queries)))
    same = alike(answers(searches.index, sample), answers(rebuilt, sample))
    for index in (searches.index, rebuilt): index.db.close()
    check_same(content(work/'soak.db'), content(work/'rebuilt.db'))
    note(did='compared', same_answers=same, questions=len(sample), rebuilt_mb=round(on_disk(str(work/'rebuilt.db'))/1e6, 2))
    if not same: sys.exit('the index answers otherwise than one that was made from nothing')

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder'); parser.add_argument('work')
    parser.add_argument('--minutes', type=float, default=30); parser.add_argument('--notebooks', type=int, default=200)
    given = parser.parse_args()
    main(given.folder, given.work, given.minutes, given.notebooks)
