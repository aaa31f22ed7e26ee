"The terminal: the real program, as a person and as a pipe meet it."
import json, os, random, re, signal, subprocess, sys, time
from pathlib import Path
import pytest
sys.path.insert(0, str(Path(__file__).parent.parent/'tools'))
import screens

program = screens.program
quick = ['--no-rerank', '--mode', 'bm25'] # what needs no model

def notebook(path, *sources):
    "Write a notebook of markdown cells, with the name of a topic or with broken JSON"
    cells = [dict(id=f'{path.stem}-{i}', cell_type='markdown', metadata={}, source=source) for i,source in enumerate(sources)]
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "An indexed folder, with three notebooks that cannot be read"
    place = tmp_path_factory.mktemp('terminal')
    (place/'nbs').mkdir()
    topics = dict(cooking='Boil the potatoes in salted water.', files='Read a CSV file row by row.', travel='Take the night train.')
    for topic,text in topics.items():
        notebook(place/f'nbs/{topic}.ipynb', f'# {topic.title()}\n{text}', *[f'## Step {n}\n{text} This is step {n}.' for n in range(4)])
    (place/'nbs/broken.ipynb').write_text('{')
    (place/'nbs/empty.ipynb').write_text('')
    (place/'nbs/strange.ipynb').write_bytes(b'\xff\xfe\x00\xd8{}')
    (place/'nothing').mkdir()
    (place/'queries.jsonl').write_text(json.dumps(dict(qid='1', query='potatoes', rels={'cooking.ipynb': 2})))
    done = run(place, 'potatoes', 'nbs', '--no-rerank', '--wait')
    assert (done.returncode, '3 added' in done.stderr, done.stderr.count('skipped ')) == (0, True, 3), done.stderr
    return place

def environment(place, **more):
    kept = {name: value for name,value in os.environ.items() if name not in ('NO_COLOR', 'COLUMNS')}
    return dict(kept, SEMSEARCH_INDEX_DIR=str(place/'index'), HF_HUB_OFFLINE='1', PYTHONWARNINGS='ignore',
                PYTHONPATH=str(Path(__file__).parent.parent), **more)

def run(place, *args, **more):
    return subprocess.run([*program, *args], cwd=place, env=environment(place, **more), capture_output=True, text=True)

# Exit codes

@pytest.mark.parametrize('args, code', [
    (['potatoes', 'nbs', *quick], 0), (['search', 'potatoes', 'nbs', *quick], 0), (['zzzz', 'nbs', *quick], 1),
    (['potatoes', 'nothing', *quick], 1), (['potatoes', 'nbs', '--threshold', '1', *quick], 1), (['x', 'nowhere'], 2),
    (['  ', 'nbs'], 2), (['x', 'nbs', '-k', '0'], 2), (['x', 'nbs', '--mode', 'magic', '--no-rerank'], 2), (['x', 'nbs', '--since', 'tomorrow', *quick], 2),
    (['similar', 'nbs/cooking.ipynb', 'nowhere', 'nbs'], 2), (['evaluate', 'no-queries.jsonl', 'nbs'], 2), (['--version'], 0), (['--help'], 0)])
def test_the_exit_code_says_how_it_went(folder, args, code):
    done = run(folder, *args)
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr
    if code == 2: assert done.stdout == '' and done.stderr.strip()

# For programs

machine = {'search': ['potatoes', 'nbs', '--json', *quick], 'nothing': ['zzzz', 'nbs', '--json', *quick], 'no notebooks': ['x', 'nothing', '--json', *quick],
           'status': ['status', 'nbs', '--json'], 'doctor': ['doctor', 'nbs', '--json'],
           'similar': ['similar', 'nbs/cooking.ipynb', 'cooking-1', 'nbs', '--json'],
           'compare': ['compare', 'potatoes', 'nbs', '-m', 'bm25', '-m', 'no/such/model', '--json'],
           'evaluate': ['evaluate', 'queries.jsonl', 'nbs', '-m', 'bm25', '--json']}

@pytest.mark.parametrize('name', machine)
def test_stdout_is_json_and_nothing_else(folder, name):
    (folder/'nbs/travel.ipynb').touch()
    done = run(folder, *machine[name])
    assert done.returncode == (1 if name.startswith('no') else 0), done.stderr
    found = json.loads(done.stdout)
    if name == 'search': assert list(found[0]) == ['rank', 'score', 'path', 'cell_index', 'cell_end', 'cell_id', 'cell_type', 'title', 'headings', 'text', 'scores', 'modified']
    if name.startswith('no'): assert found == []
    if name == 'status': assert (found['notebooks'], len(found['errors'])) == (6, 3)

@pytest.mark.parametrize('name', ['search', 'status', 'doctor', 'jsonl', 'lines', 'help'])
def test_a_pipe_that_closes_early_is_no_error(folder, name):
    more = dict(jsonl=['step', 'nbs', '--jsonl', *quick], lines=['step', 'nbs', '-C', '3', *quick], help=['search', '--help'])
    with subprocess.Popen([*program, *{**machine, **more}[name]], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read().decode()
    assert not re.search('Traceback|BrokenPipe|Exception ignored', said), said

def test_jsonl_is_one_row_a_line(folder):
    rows = [json.loads(line) for line in run(folder, 'step', 'nbs', '--jsonl', '-k', '4', *quick).stdout.splitlines()]
    assert [row['rank'] for row in rows] == [1, 2, 3, 4] and all(isinstance(part, float) for row in rows for part in row['scores'].values())

@pytest.mark.parametrize('form', ['--jsonl', '-l'])
def test_nothing_found_is_no_line_at_all(folder, form):
    assert run(folder, 'zzzz', 'nbs', form, *quick).stdout == ''

@pytest.mark.parametrize('encoding', ['cp1252', 'ascii'])
def test_characters_that_the_output_lacks_are_spelled(folder, encoding):
    (folder/'arrows').mkdir(exist_ok=True)
    notebook(folder/'arrows/a.ipynb', '# Arrows\nmañana → 😀')
    for form in ('--json', '--jsonl', '-l', '-C0'):
        done = subprocess.run([*program, 'arrows', 'arrows', form, *quick], cwd=folder, capture_output=True,
                              env=environment(folder, PYTHONIOENCODING=encoding), encoding=encoding)
        assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
        if form == '--json': assert 'mañana → 😀' in json.loads(done.stdout)[0]['text']

def test_a_damaged_index_is_named_by_every_command(folder):
    run(folder, 'index', 'nbs', '--index', 'spoiled.db')
    data = bytearray((folder/'spoiled.db').read_bytes())
    data[4096:] = b'\x5a'*len(data[4096:])
    (folder/'spoiled.db').write_bytes(data)
    for command in ('status', 'doctor'):
        done = run(folder, command, 'nbs', '--index', 'spoiled.db', '--json')
        assert done.returncode in (1, 2) and 'Traceback' not in done.stderr, done.stderr
        if command == 'doctor': assert [row['well'] for row in json.loads(done.stdout) if row['what'] == 'index'] == [False]
        else: assert 'damaged' in done.stderr

# For people

@pytest.mark.parametrize('args, meant', [
    (['x', '--jsn'], '--json'), (['x', '--top_k', '3'], '--top-k'), (['x', '--no-rank'], '--no-rerank'), (['x', '--thresold', '1'], '--threshold'),
    (['status', '--jason'], '--json'), (['serve', '--prot', '1'], '--port'), (['index', '--rebuid'], '--rebuild'), (['--versoin'], '--version')])
def test_a_typo_names_the_right_flag(folder, args, meant):
    done = run(folder, *args)
    assert done.returncode == 2 and re.search(f'(Did you mean|Possible options).*{meant}', done.stderr, re.S), done.stderr

def on_terminal(place, *args, **more):
    "What the program writes when stdout is a terminal of 80 columns"
    said,code = screens.on_terminal(*args, cwd=place, env=environment(place, **more))
    assert code == 0
    return said

def test_a_terminal_gets_colours_and_links_and_a_pipe_does_not(folder):
    plain = run(folder, 'potatoes', 'nbs', '-k', '1', *quick).stdout
    rich = on_terminal(folder, 'potatoes', 'nbs', '-k', '1', *quick)
    assert '\x1b' not in plain and f'\x1b]8;;{(folder/"nbs/cooking.ipynb").as_uri()}\x1b\\' in rich
    assert re.search(r'\x1b\[33m\x1b\[1m[Pp]otatoes\x1b\[0m', rich)
    assert on_terminal(folder, 'potatoes', 'nbs', '-k', '1', *quick, NO_COLOR='1') == plain
    assert re.sub(r'\x1b\]8;;.*?\x1b\\|\x1b\[\d*m', '', rich) == plain

def test_lines_fit_eighty_columns(folder):
    lines = run(folder, 'step', 'nbs', '--explain', '--no-rerank', COLUMNS='80').stdout.splitlines()
    assert lines and max(map(len, lines)) <= 80
    for command in ('', 'search', 'index', 'status', 'doctor', 'similar', 'train', 'compare', 'evaluate', 'serve', 'mcp', 'clear'):
        shown = run(folder, *command.split(), '--help', COLUMNS='80')
        assert shown.returncode == 0 and max(map(len, shown.stdout.splitlines())) <= 80
        if command: assert 'Example: semsearch' in shown.stdout.replace('\n', ' '), command

@pytest.mark.parametrize('shell, words, wanted', [('bash', 'semsearch st', 'status'), ('bash', 'semsearch search --no-re', '--no-rerank'),
                                                  ('zsh', 'semsearch ev', 'evaluate')])
def test_the_shell_completes(folder, shell, words, wanted):
    done = run(folder, _SEMSEARCH_COMPLETE=f'complete_{shell}', COMP_WORDS=words, COMP_CWORD=str(words.count(' ')), _TYPER_COMPLETE_ARGS=words)
    assert wanted in done.stdout

def test_neighbours_are_shown(folder):
    shown = run(folder, 'step 2', 'nbs', '-g', 'files.ipynb', '-k', '1', '-C', '1', *quick).stdout
    assert shown.count('    | ') >= 2 and '    > ' in shown

terminal = {'typer', 'click', 'rich', 'markdown_it', 'mdurl', 'pygments', 'attr', 'attrs', 'shellingham', 'annotated_doc', 'annotated_types', 'colorama',
            'pydantic', 'pydantic_core', 'typing_extensions', 'typing_inspection', 'semsearch', 'fastcore'} # typer and what it imports, and ours
storage = terminal | {'numpy', 'apsw', 'safetensors', 'filelock'}
models = storage | {'tqdm', 'tokenizers'}

@pytest.mark.parametrize('args, allowed', [(['--help'], terminal), (['status', 'nbs'], storage), (['potatoes', 'nbs', *quick], models),
                                           (['potatoes', 'nbs', '--no-rerank'], models), (['potatoes', 'nbs'], models)])
def test_a_command_imports_only_what_it_uses(folder, args, allowed):
    code = '''import sys; from semsearch.cli import app
try: app(sys.argv[1:], standalone_mode=False)
finally: print(*{name.split('.')[0] for name in sys.modules}, *{'fastcore.parallel', 'fastcore.net'} & sys.modules.keys(), file=sys.stderr)'''
    (folder/'nbs/travel.ipynb').touch() # looks changed, and is not
    done = subprocess.run([sys.executable, '-c', code, *args], cwd=folder, env=environment(folder), capture_output=True, text=True)
    found = {name for name in done.stderr.splitlines()[-1].split() if not name.startswith('_') and name != 'sitecustomize'}
    assert found - allowed - sys.stdlib_module_names == set()
    assert not found & {'asyncio', 'ssl', 'sqlite3', 'unittest'}

def test_the_tools_for_agents_import_no_model_library():
    code = 'import sys, semsearch.mcp; print(*{name.split(".")[0] for name in sys.modules})'
    found = set(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split())
    assert 'semsearch' in found and {name for name in found if not name.startswith('_')} - models - sys.stdlib_module_names <= {'sitecustomize'}

@pytest.mark.skipif(sys.platform != 'linux', reason='counts kilobytes')
def test_a_search_with_both_stages_fits_300_megabytes(folder):
    code = '''import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)''' # a small parent, since a child begins with what its parent has
    done = subprocess.run([sys.executable, '-c', code, *program, 'salted water', 'nbs'], cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert 'cooking' in done.stdout and int(done.stdout.splitlines()[-1]) < 300_000

# In a notebook

@pytest.mark.parametrize('line, cell, query', [
    ('-- --no-verify -k 3', None, '--no-verify -k 3'), ('-k 1 -- -k', None, '-k'), ('a -> b -k 1', None, 'a -> b'), ('-1 as an index', None, '-1 as an index'),
    ('-k 1', '-k flag\n--hard', '-k flag --hard'), ('-- --soft', 'or\n--hard', '--soft or --hard'), ('--- or --> -k 1', None, '--- or -->')])
def test_a_question_in_a_notebook_may_begin_with_a_dash(monkeypatch, line, cell, query):
    pytest.importorskip('IPython')
    from semsearch import magic
    monkeypatch.setattr(magic, 'ask', lambda query, args: query)
    assert magic.semsearch(line, cell) == query

def test_an_unknown_option_in_a_notebook_names_the_two_dashes():
    error = pytest.importorskip('IPython.core.error').UsageError
    from semsearch import magic
    with pytest.raises(error, match='unrecognized arguments: --no-verify.* %semsearch -- '): magic.semsearch('--no-verify in git')
    with pytest.raises(error) as said: magic.semsearch('x -k three')
    assert 'two dashes' not in str(said.value) and 'invalid int' in str(said.value)

# Ctrl-C

ready = [sys.executable, '-c', 'import sys; sys.argv[0] = "semsearch"; from semsearch.cli import main; print("ready", file=sys.stderr, flush=True); main()']

def interrupted(folder, wait, *args, **more):
    "How a program ends that gets a Ctrl-C some seconds after it has begun, or after a line that holds some words"
    process = subprocess.Popen([*ready, *args], cwd=folder, env=environment(folder, **more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if (wait if isinstance(wait, str) else 'ready') in line: break
        if not isinstance(wait, str): time.sleep(wait)
        process.send_signal(signal.SIGINT)
        return (process.wait(10), process.communicate()[1])
    finally: process.kill(); process.communicate()

@pytest.mark.parametrize('args', [[], ['--model']], ids=['built in', 'another model'])
def test_ctrl_c_ends_a_search_whenever_it_comes(folder, model, args):
    rng = random.Random(3)
    for i in range(8):
        code,said = interrupted(folder, rng.uniform(0, 1.5), 'potatoes', 'nbs', '--index', f'ctrl-c-{len(args)}.db', *args, *[model]*len(args))
        assert code in (-signal.SIGINT, 130, 0) and 'Traceback' not in said, (i, code, said)
    assert run(folder, 'potatoes', 'nbs', '--index', f'ctrl-c-{len(args)}.db', *args, *[model]*len(args)).returncode == 0

def test_ctrl_c_does_not_wait_for_a_thread_that_imports(folder, tmp_path):
    "What loads the model imports something that never ends"
    (tmp_path/'safetensors').mkdir(); (tmp_path/'safetensors/__init__.py').write_text('import time; time.sleep(1000)')
    paths = os.pathsep.join([str(tmp_path), environment(folder)['PYTHONPATH']])
    code = f'import sys; sys.path[:0] = {paths.split(os.pathsep)}; sys.argv[0] = "semsearch"; from semsearch.cli import main; print("ready", file=sys.stderr, flush=True); main()'
    process = subprocess.Popen([sys.executable, '-c', code, 'potatoes', 'nbs'], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        process.stderr.readline(); time.sleep(2); assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
    finally: process.kill(); process.communicate()

def test_ctrl_c_is_still_ignored_where_it_was_switched_off(folder):
    done = subprocess.run(['bash', '-c', 'trap "" INT; "$@" & sleep .7; kill -INT $!; wait $!', 'bash', *program, 'potatoes', 'nbs'], cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0 and 'cooking' in done.stdout

def test_ctrl_c_ends_the_servers(folder):
    for module in ('fasthtml', 'mcp'): pytest.importorskip(module)
    assert interrupted(folder, 'Ctrl-C stops it', 'serve', 'nbs', '--port', '0')[0] == 0
    assert interrupted(folder, 1., 'mcp', 'nbs')[0] == -signal.SIGINT

# Odd surroundings

@pytest.mark.parametrize('query', ['--step 4 of cooking', '-1 step of cooking', '- step'])
def test_a_question_may_begin_with_a_dash(folder, query):
    done = run(folder, query, 'nbs', *quick, '-k', '1')
    assert done.returncode == 0 and '.ipynb:' in done.stdout, done.stderr

def test_an_option_that_is_none_names_the_way_to_search_for_it(folder):
    done = run(folder, '--error-on-warnings', 'nbs')
    assert done.returncode == 2 and 'semsearch -- "--error-on-warnings"' in ' '.join(re.sub('[│╭╮╰╯─]', ' ', done.stderr).split())
    assert run(folder, 'search', *quick, '--', '--step', 'nbs').returncode == 0

def test_no_notebooks_says_which_rules_left_them_out(folder, tmp_path):
    place = tmp_path/'repo'; (place/'.git').mkdir(parents=True); (place/'.hide').mkdir()
    (place/'.gitignore').write_bytes('\ufeff*.ipynb\n'.encode()) # as some editors save it
    notebook(place/'a.ipynb', '# A'); notebook(place/'b.ipynb', '# B')
    assert '2 left out by .gitignore or as generated copies; --no-ignore searches them' in run(tmp_path, 'x', 'repo', *quick).stderr
    assert run(tmp_path, 'A', 'repo', '--no-ignore', *quick).returncode == 0
    (place/'.gitignore').write_text('/.hide/x\n/out/\n')
    for name in ('a', 'b'): (place/f'{name}.ipynb').rename(place/'.hide'/f'{name}.ipynb')
    assert '2 left out in hidden folders; --hidden searches them' in run(tmp_path, 'x', 'repo', *quick).stderr
    (place/'out').mkdir(); notebook(place/'out'/'c.ipynb', '# C')
    assert run(tmp_path, 'C', 'repo/out', *quick).returncode == 0 # named, although a rule above leaves it out
    assert '(' not in run(folder, 'x', 'nothing', *quick).stderr

def test_without_a_stream_the_answer_is_the_same(folder):
    for close in ('2>&-', '0<&- 2>&-'):
        done = subprocess.run(['bash', '-c', f'exec "$@" {close}', 'bash', *program, 'potatoes', 'nbs', '--json', *quick], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0 and json.loads(done.stdout)[0]['path'] == 'nbs/cooking.ipynb'
    done = subprocess.run(['bash', '-c', 'exec "$@" >&-', 'bash', *program, 'potatoes', 'nbs', *quick], cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and 'Traceback' not in done.stderr

def test_a_pipe_is_no_index_and_no_parquet_file(folder, tmp_path):
    os.mkfifo(tmp_path/'pipe')
    for args in (['clear', 'nbs', '--index', tmp_path/'pipe'], ['potatoes', 'nbs', *quick, '--index', tmp_path/'pipe'], ['index', 'nbs', '--rebuild', '--index', tmp_path/'pipe']):
        done = subprocess.run([*program, *map(str, args)], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and 'Traceback' not in done.stderr and (tmp_path/'pipe').is_fifo(), done

def test_a_damaged_parquet_file_is_named(folder, tmp_path):
    pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    assert run(folder, 'export', str(tmp_path/'good.parquet'), 'nbs').returncode == 0
    table = pq.read_table(tmp_path/'good.parquet'); data = (tmp_path/'good.parquet').read_bytes()
    def other(name, column, change):
        values = [change(value) for value in table[column].to_pylist()]
        pq.write_table(table.set_column(table.schema.get_field_index(column), table.schema.field(column).with_type(pa.array(values).type), pa.array(values)), tmp_path/name)
    other('short.parquet', 'vectors', lambda row: [vector[:-2] for vector in row]); other('fewer.parquet', 'vectors', lambda row: row[1:])
    other('nan.parquet', 'vectors', lambda row: [b'\xff\x7f'*(len(vector)//2) for vector in row]); other('text.parquet', 'passages', lambda row: ['{' for _ in row])
    other('wrong.parquet', 'passages', lambda row: ['{"a": 1}' for _ in row]); pq.write_table(table.drop_columns(['passages']), tmp_path/'none.parquet')
    (tmp_path/'cut.parquet').write_bytes(data[:len(data)//2]); (tmp_path/'bytes.parquet').write_bytes(data[:200] + bytes(200) + data[400:])
    os.mkfifo(tmp_path/'pipe.parquet')
    for file in sorted(tmp_path.glob('*.parquet')):
        if file.name == 'good.parquet': continue
        done = subprocess.run([*program, 'import', str(file), 'nbs', '--index', str(tmp_path/f'{file.name}.db')], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=100)
        assert done.returncode == 2 and 'Traceback' not in done.stderr and file.name in done.stderr, (file, done)
    assert run(folder, 'import', str(tmp_path/'good.parquet'), 'nbs', '--index', str(tmp_path/'good.db')).returncode == 0
