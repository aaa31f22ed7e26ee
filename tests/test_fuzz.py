"What comes in from outside besides notebooks: queries, sets of queries, weights; made up by the thousand."
import json, os, pickle, random, re, shutil, unicodedata, warnings
from collections import Counter
from pathlib import Path
import numpy as np, pytest
from helpers import asked, content, make_notebooks, modes, opened, soak, words, write
from semsearch.compare import QuerySetError, load_queries
from semsearch.core import printable
from semsearch.encoder import Encoder, ModelError, check_sha256, embedded_sha256, load_encoder
from semsearch.store import word_terms
from semsearch.passages import embedded_folder
from semsearch.reader import PairReader, load_cross_encoder, load_reader
from test_loader import unprintable

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
    for i in range(10_000 if soak else 1500):
        query,mode = made_up(rng),'bm25' if i % 10 else rng.choice(modes)
        found = check_answer(small, query, mode)
        done[mode if found is not None else 'blank'] += 1
        if found is None or i % 5 != 1: continue
        everything = check_answer(small, query, 'bm25', 100)
        assert due(small, query) <= set(everything), query
        if parts := re.findall(r'\w+', printable(query)): assert everything == check_answer(small, ' '.join(parts), 'bm25', 100), query
    assert content(small.file) == before
    print(f'{sum(done.values())} queries: {dict(done)}')

@pytest.mark.parametrize('query', ['sort '*200_000, ' '.join(map(str, range(150_000))), 'x'*1_000_000, '"'*1_000_000, 'AND NEAR(* '*90_000,
                                   '表'*333_333, '\U0001f600 '*200_000, ''.join(every_script)])
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
