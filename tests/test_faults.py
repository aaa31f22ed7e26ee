"What a stranger may put before semsearch: notebooks, names, models and index files made to harm, old or odd."
import gzip, json, os, pickle, random, resource, shutil, subprocess, sys, threading, time
from contextlib import suppress
from pathlib import Path
import apsw, pytest
from fastcore.basics import AttrDict
from helpers import answers, asked, can_fork, check_same, content, fresh_content, heard, make_notebooks, opened, prose, soak, start, tiny_encoder, write
from semsearch.cli import remove_index
from semsearch.encoder import ModelError, check_sha256, embedded_sha256, load_encoder
from semsearch.index import NotebookIndex
from semsearch.store import IndexFileError, format_version
from semsearch.loader import load_passages, try_read
from semsearch.notebook import Notebook, read_notebook
from semsearch.passages import embedded_folder, split_notebook
from semsearch.reader import load_reader
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

# Too much of something

def bomb(name, n):
    "Text that is harmless to a reader, and not to every regular expression"
    return dict(breaks='\n'*n, blanks='# a'+' '*n+'b {', tabs='\t'*n, links='['*n, images='![a'*(n//3), comments='<!--'*(n//4), tags='<a '*(n//3),
                tables='| '*(n//2)+'x', entity='&#'+'1'*n, directives='#|'+'\n'*n, facts='#| a b'+' '*n+'c', front='---\ntitle: a'+' '*n+'b\n',
                magics='%\n'*(n//2), brackets='['*n+']'*n, quotes='"'*n, fences='`'*n, headings='# a\n'*(n//4), lines=' \n'*(n//2))[name]

@pytest.mark.parametrize('kind', ['markdown', 'code'])
@pytest.mark.parametrize('name', 'breaks blanks tabs links images comments tags tables entity directives facts front magics brackets quotes '
                                 'fences headings lines'.split())
def test_the_work_grows_with_the_text_and_not_with_its_square(tmp_path, name, kind):
    "Ten times the text may cost fifty times the work; with its square it would be a hundred times"
    def spent(n):
        notebook = read_notebook(cells(tmp_path/'n.ipynb', bomb(name, n), kind=kind))
        begin = time.process_time(); split_notebook(notebook)
        return time.process_time()-begin
    spent(1000)
    assert spent(100_000) < 50*max(.05, min(spent(10_000) for _ in range(3)))

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
