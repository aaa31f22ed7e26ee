"What people type: filters, hints, places, projects. The real program each time."
import json, os, re, signal, subprocess, sys, time
from pathlib import Path
import apsw, pytest
from test_cli import environment, notebook, on_terminal, program, quick, run

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp('typed')
    (place/'nbs'/'drafts').mkdir(parents=True)
    topics = {'cooking': 'Boil the potatoes in salted water.', 'travel': 'Take the night train.', 'drafts/soup': 'A soup of potatoes.'}
    for age,(name,text) in enumerate(topics.items()):
        notebook(place/f'nbs/{name}.ipynb', f'# {Path(name).name.title()}\n{text}', f'## Step\n{text} And then.')
        moment = time.time() - age*10*24*3600
        os.utime(place/f'nbs/{name}.ipynb', (moment, moment))
    (place/'nbs/notes.md').write_text('# Notes\n\nPotatoes keep well in a cellar.')
    (place/'nbs/cells.py').write_text('# %% [markdown]\n# # Cells\n# Potatoes in a script.\n# %%\nprint(1)')
    (place/'nbs/plain.py').write_text('print("potatoes")')
    assert run(place, 'potatoes', 'nbs', '--no-rerank', '--wait').returncode == 0
    return place

def paths(done): return [Path(path).name for path in done.stdout.split()]

# What is searched

@pytest.mark.parametrize('args, wanted', [
    (['--exclude', 'drafts/'], {'cooking.ipynb'}), (['--since', '5d'], {'cooking.ipynb'}), (['--until', '15d'], {'soup.ipynb'}),
    (['--since', 'yesterday'], {'cooking.ipynb'}), (['-g', 'drafts/', '--exclude', 'x*'], {'soup.ipynb'})])
def test_filters_of_paths_and_dates(folder, args, wanted):
    assert set(paths(run(folder, 'potatoes', 'nbs', '-l', *quick, *args))) == wanted

def test_text_notebooks_are_found_when_asked_for(folder):
    assert 'notes.md' not in paths(run(folder, 'potatoes', 'nbs', '-l', *quick))
    assert {'notes.md', 'cells.py', 'cooking.ipynb'} <= set(paths(run(folder, 'potatoes', 'nbs', '-l', '--text', *quick)))
    assert 'plain.py' not in paths(run(folder, 'potatoes', 'nbs', '-l', '--text', *quick))

def test_files_are_counted_as_files(folder):
    assert len(paths(run(folder, 'potatoes', 'nbs', '-l', '-k', '2', *quick))) == 2

def test_a_question_may_come_from_stdin(folder):
    done = subprocess.run([*program, '-', 'nbs', '-l', *quick], input='night train\n', cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.stdout.split() == ['nbs/travel.ipynb']

def test_hits_can_be_sorted_and_have_a_date(folder):
    rows = json.loads(run(folder, 'potatoes', 'nbs', '--json', '--sort', 'date', *quick).stdout)
    assert [row['modified'] for row in rows] == sorted((row['modified'] for row in rows), reverse=True)
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d', rows[0]['modified'])
    assert paths(run(folder, 'potatoes', 'nbs', '-l', '--sort', 'path', *quick)) == ['cooking.ipynb', 'soup.ipynb']
    assert run(folder, 'potatoes', 'nbs', '--sort', 'size', *quick).returncode == 2

# Twenty things that a program has printed

broken = ['{}["missing key of the day"]', '"text"[99]', 'int("twelve monkeys")', '[].pop()', '1/0', 'undefined_name_here', 'None.split()', 'len(5)',
          'open("/no/such/file.csv")', '(1, 2).append(3)', 'import no_such_module', 'next(iter([]))', 'dict(a=1).b', '"a" + 1', 'sum("abc")',
          'float("1,5")', 'b"\\xff".decode()', 'assert 1 == 2, "totals of both months differ"', '[1, 2].index(3)', 'sorted([1, "a"])']

def test_pasted_errors_lead_to_the_cell_that_ended_in_them(tmp_path):
    said = []
    for i,source in enumerate(broken):
        try: exec(source, {})
        except Exception as error: said.append((type(error).__name__, str(error)))
        output = dict(output_type='error', ename=said[i][0], evalue=said[i][1], traceback=['Traceback', 'x'*500])
        cells = [dict(id=f'intro{i}', cell_type='markdown', metadata={}, source=f'# Notebook {i}\nAbout errors such as {said[i][0]}, and how to avoid them.'),
                 dict(id=f'cell{i}', cell_type='code', metadata={}, execution_count=1, source='result = work(table)', outputs=[output])]
        (tmp_path/f'n{i}.ipynb').write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    found = [json.loads(run(tmp_path, f'{name}: {text}', '.', '--json', '-k', '1', '--no-rerank').stdout)[0] for name,text in said]
    right = [row['path'].endswith(f'n{i}.ipynb') and 'printed' in row for i,row in enumerate(found)]
    assert sum(right) >= 19, [pair for pair,ok in zip(said, right) if not ok]
    assert found[0]['printed'].startswith('KeyError: ')
    plain = run(tmp_path, 'how to avoid errors', '.', '-k', '1', '--no-rerank').stdout # words that somebody wrote come first
    assert 'prints:' not in plain
    assert 'prints: ' in run(tmp_path, f'{said[1][0]}: {said[1][1]}', '.', '-k', '1', '--no-rerank').stdout

# Hints

def test_words_without_quotes_are_guessed(folder):
    done = run(folder, 'night', 'train', 'tickets?', 'nbs', *quick)
    assert done.returncode == 2 and 'semsearch "night train tickets?" nbs' in done.stderr

@pytest.mark.parametrize('typed, meant', [('statsu', 'status'), ('indx', 'index'), ('simlar', 'similar')])
def test_a_mistyped_command_is_guessed(folder, typed, meant):
    assert f'Did you mean: semsearch {meant}' in run(folder, typed, 'nbs', *quick).stderr

def test_an_ordinary_word_is_no_mistyped_command(folder):
    assert 'Did you mean' not in run(folder, 'potatoes', 'nbs', *quick).stderr

@pytest.mark.parametrize('args, said', [
    (['-g', 'wesm'], 'no notebook matches wesm, of 3 in the folder'), (['--language', 'pythn'], 'no notebook is in pythn, there is python'),
    (['--since', '2199-01-01'], 'no notebook was changed since 2199-01-01'), (['--error'], 'no cell ended in an error')])
def test_nothing_found_says_which_condition_left_nothing(folder, args, said):
    done = run(folder, 'potatoes', 'nbs', *quick, *args)
    assert done.returncode == 1 and said in done.stderr

def test_an_unknown_model_is_answered_at_once_with_the_nearest_name(folder):
    done = subprocess.run([*program, 'x', 'nbs', '--model', 'all-MiniLM-L6-v3'], cwd=folder, capture_output=True, text=True,
                          env=dict(environment(folder), HF_HUB_OFFLINE='', HF_ENDPOINT='http://localhost:9', https_proxy='', HTTPS_PROXY=''))
    assert done.returncode == 2 and "Did you mean 'all-MiniLM-L6-v2'" in done.stderr and 'Retrying' not in done.stderr

@pytest.mark.parametrize('forms', [('--json', '--jsonl'), ('--json', '-l'), ('--jsonl', '-l')])
def test_one_form_at_a_time(folder, forms): assert run(folder, 'potatoes', 'nbs', *quick, *forms).returncode == 2

# Places

def test_similar_takes_a_place_as_hits_print_it(folder):
    place = run(folder, 'potatoes', 'nbs', '-k', '1', *quick).stdout.split(': ')[0]
    done = run(folder, 'similar', place, 'nbs')
    assert done.returncode == 0 and done.stdout and place not in done.stdout

@pytest.mark.parametrize('place', ['nbs/cooking.ipynb:nowhere', 'nbs/none.ipynb:cooking-0', 'nbs/cooking.ipynb', 'x'])
def test_similar_looks_before_it_indexes(folder, tmp_path, place):
    done = subprocess.run([*program, 'similar', place], cwd=folder, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2 and 'added' not in done.stderr and not list(tmp_path.rglob('*.db'))

@pytest.mark.parametrize('command', ['status', 'doctor', 'clear', 'index'])
def test_a_path_that_is_not_there_is_exit_code_2(folder, command):
    done = run(folder, command, 'no/where')
    assert done.returncode == 2 and 'no/where' in done.stderr

def test_status_of_a_folder_that_was_never_indexed_makes_no_file(folder, tmp_path):
    done = subprocess.run([*program, 'status', 'nbs'], cwd=folder, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0 and 'Nothing is indexed here yet' in done.stderr and not list(tmp_path.rglob('*.db'))

def test_doctor_names_what_was_skipped(tmp_path):
    notebook(tmp_path/'good.ipynb', '# Good')
    (tmp_path/'bad.ipynb').write_text('{')
    run(tmp_path, 'good', '.', *quick)
    assert re.search(r'skipped .*bad\.ipynb: not JSON', run(tmp_path, 'doctor', '.').stdout)

def test_a_failed_import_leaves_nothing_behind(folder, tmp_path):
    (tmp_path/'no.parquet').write_bytes(b'PAR1 no table PAR1')
    done = subprocess.run([*program, 'import', str(tmp_path/'no.parquet'), 'nbs'], cwd=folder, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2 and [file.name for file in tmp_path.rglob('*.db')] in ([], ['scores.db'])

def test_judged_notebooks_that_are_not_there_are_named(folder):
    (folder/'queries.jsonl').write_text(json.dumps(dict(qid='1', query='potatoes', rels={'cooking.ipynb': 2, 'gone.ipynb': 1})))
    done = run(folder, 'evaluate', 'queries.jsonl', 'nbs', '-m', 'bm25')
    assert '1 of 2 judged notebooks are not in the folder: gone.ipynb' in done.stderr

# How it looks

def test_the_hit_comes_before_what_is_around_it_and_lines_fit(folder):
    said = on_terminal(folder, 'potatoes', 'nbs', '-k', '2', '-C', '1', *quick, NO_COLOR='1')
    blocks = said.strip().split('\n\n')
    assert len(blocks) == 2 and all(re.match(r'nbs/\S+: ', block) for block in blocks)
    assert max(map(len, said.splitlines())) <= 80

def test_help_has_five_groups(folder):
    said = run(folder, 'search', '--help').stdout
    for group in ('Which notebooks', 'Which cells', 'How it searches', 'What is shown', 'For programs'): assert group in said

def test_open_starts_the_editor_at_the_nth_hit(folder, tmp_path):
    (tmp_path/'editor.py').write_text('import sys; open(sys.argv[1], "w").write("|".join(sys.argv[2:]))')
    env = environment(folder, SEMSEARCH_EDITOR=f'{sys.executable} {tmp_path}/editor.py {tmp_path}/opened {{path}} {{cell}} {{line}}')
    rows = json.loads(run(folder, 'potatoes', 'nbs', '--json', *quick).stdout)
    assert subprocess.run([*program, 'potatoes', 'nbs', '--open', '2', *quick], cwd=folder, env=env, stdout=subprocess.DEVNULL).returncode == 0
    path,cell,line = (tmp_path/'opened').read_text().split('|')
    assert path.endswith(rows[1]['path']) and cell == rows[1]['cell_id'] and int(line) >= 1
    assert run(folder, 'potatoes', 'nbs', '--open', '99', *quick).returncode == 2

# Projects

def test_a_project_says_what_is_searched_and_the_command_line_counts_more(folder):
    (folder/'.semsearch.toml').write_text('paths = ["nbs"]\nexclude = ["drafts/"]')
    try:
        assert paths(run(folder, 'potatoes', '-l', *quick)) == ['cooking.ipynb']
        assert 'soup.ipynb' in paths(run(folder, 'potatoes', 'nbs/drafts', '--exclude', 'x', '-l', *quick))
        assert '.semsearch.toml' in run(folder, 'config').stdout
        (folder/'.semsearch.toml').write_text('paths = ["../../etc"]')
        assert run(folder, 'potatoes', '-l', *quick).returncode == 2
    finally: (folder/'.semsearch.toml').unlink()

def test_ctrl_c_of_index_says_what_was_kept(tmp_path):
    for i in range(60): notebook(tmp_path/f'n{i}.ipynb', *[f'# Part {j} of {i}\n' + f'Words {i} {j} that take a while to be encoded. '*12 for j in range(40)])
    process = subprocess.Popen([*program, 'index', '.'], cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
    def encoded():
        index = next((file for file in tmp_path.rglob('*.db') if file.name != 'scores.db'), None)
        try: return index and apsw.Connection(str(index), flags=apsw.SQLITE_OPEN_READONLY).execute('select sum(real) from vectors').get
        except apsw.Error: return 0 # it is just being made
    for _ in range(600):
        if encoded(): break
        time.sleep(.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and 'Traceback' not in said and re.search(r'passages are kept, \d+ of them encoded', said)

# In Python

def test_the_package_has_the_two_names_to_begin_with():
    code = 'import sys, semsearch; print("numpy" in sys.modules); from semsearch import search, NotebookSearch; print(callable(search), NotebookSearch.__name__)'
    done = subprocess.run([sys.executable, '-c', code], env=environment(Path('.')), capture_output=True, text=True)
    assert done.stdout.split() == ['False', 'True', 'NotebookSearch'], done.stderr
