"""Take out one guard at a time, and see the test that must go red.

    python tools/mutate.py [NAME ...]

Works on a copy of the tree. A guard is a piece of code with something else in its place, and a test. The table on the page about
reliability is what this prints; it ends with 1 if a guard could go unnoticed, or if a piece of code is no longer there."""
import os, shutil, subprocess, sys, tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
guards = { # name: (file, code, what stands in its place, test)
    'the transaction of a batch': ('store.py', '    with self.writing():\n        lost = ', '    if True:\n        lost = ',
        'test_index.py::test_any_order_of_edits_ends_in_what_a_fresh_reading_gives'),
    'one state for a whole search': ('store.py', "    self.db.execute('begin')\n    try: yield\n", '    try: yield\n',
        'test_index.py::test_a_search_sees_one_state_of_the_file'),
    'waiting for the lock': ('store.py', "db.set_busy_timeout(60_000); db.transaction_mode = 'IMMEDIATE'\n    if not kind", "db.transaction_mode = 'IMMEDIATE'\n    if not kind",
        'test_index.py::test_eight_processes_may_make_the_same_index_at_once'),
    'the model check': ('store.py', 'if theirs.get(key) != mine:', 'if False:', 'test_index.py::test_a_program_that_has_an_index_open_outlives_its_clearing'),
    'the model check inside a search': ('index.py', '        self.check_model()\n', '', 'test_index.py::test_a_program_that_has_an_index_open_outlives_its_clearing'),
    'the format check': ('store.py', 'elif format != version:', 'elif False:', 'test_index.py::test_another_format_is_refused_and_left_alone'),
    'whose file it is': ('store.py', 'elif theirs != owner:', 'elif False:', 'test_index.py::test_a_file_of_another_program_is_refused_and_left_alone'),
    'emptied, not deleted': ('store.py', "            if last: db.execute('begin exclusive'); os.unlink(file)", '            os.unlink(file)',
        'test_behind.py::test_a_file_that_somebody_has_open_is_emptied_and_stays'),
    'what is untidy is remembered': ('store.py', 'values(\'edition\',hex(randomblob(8))), (\'untidy\',\'\')")', 'values(\'edition\',hex(randomblob(8)))")',
        'test_index.py::test_what_an_update_left_undone_is_done_by_the_next_one'),
    'a file that is saved while it is read': ('store.py', '    digests.update({path: None for path in other if now(path) != changes.files[path]})', '    pass',
                                              'test_index.py::test_a_notebook_that_is_half_saved_while_it_is_read_is_read_again'),
    'what nobody could list is not gone': ('store.py', 'if path not in files and not path.startswith(unseen)]', 'if path not in files]',
        'test_faults.py::test_a_failed_look_is_not_an_empty_folder'),
    'the time of the last change to a name': ('store.py', 'or stamp != rows[path][0]', 'or stamp[:2] != rows[path][0][:2]',
        'test_index.py::test_two_notebooks_of_one_size_and_one_time_may_change_places'),
    'the size of every vector': ('store.py', 'if not np.isin(sizes, (0, 2*matrix.shape[1])).all():', 'if False:',
        'test_index.py::test_a_vector_of_another_size_is_never_compared'),
    'the sha256 check': ('encoder.py', 'if digest == expected:', 'if True:', 'test_fuzz.py::test_weights_that_come_with_us_are_the_published_ones'),
    'nothing but safetensors': ('encoder.py', 'safe = dict(use_safetensors=True)', 'safe = {}', 'test_fuzz.py::test_weights_that_are_not_safetensors_are_named_and_never_unpickled'),
    "no code of a model's own": ('encoder.py', 'trust_remote_code=False', 'trust_remote_code=True', 'test_fuzz.py::test_a_model_of_code_is_refused'),
    'the words of a query, not its syntax': ('index.py', "    match = ' OR '.join(", "    match = query or ' OR '.join(", 'test_fuzz.py::test_no_query_is_more_than_words'),
    'words that no passage holds': ('index.py', 'for term,count in counts.items() if count}', 'for term,count in counts.items()}',
                                    'test_index.py::test_words_that_no_passage_holds_are_not_asked_for'),
    'control characters': ('core.py', """    return re.sub(r'[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]', ' ', text)""", '    return text',
                           'test_faults.py::test_no_escape_sequence_reaches_a_terminal'),
    'control characters spelled as entities': ('notebook.py', "    return printable(re.sub(entity, known, text))", '    return re.sub(entity, known, text)',
                                               'test_loader.py::test_damaged_notebooks_are_read_or_named'),
    'escaping on a card': ('core.py', "Div(*marks(hit.parts(query, 240)))", "Div(NotStr(hit.text))", 'test_faults.py::test_no_markup_of_a_notebook_reaches_jupyter'),
    'no HTML of a notebook on the page': ('page.py', "dict(html=False, highlight=code)", "dict(html=True, highlight=code)", 'test_app.py::test_what_stands_in_a_notebook_makes_no_tags'),
    'who may ask the page': ('app.py', 'no,request = refusal(scope[\'method\'], headers, self.hosts),', 'no,request = None,', 'test_app.py::test_other_sites_are_not_answered'),
    'the token of a server for other machines': ('app.py', 'if not knows_token(request, self.token):', 'if False:', 'test_app.py::test_other_machines_need_the_token'),
    'a token for other machines': ('app.py', "return '' if here else secrets.token_urlsafe()", "return ''", 'test_app.py::test_other_machines_need_the_token'),
    'a token for each start': ('app.py', 'else secrets.token_urlsafe()', "else 'a'*43", 'test_app.py::test_another_start_has_another_token'),
    'a cookie that no script can read': ('app.py', 'Path=/; HttpOnly; SameSite=Strict', 'Path=/',
        'test_app.py::test_the_token_is_kept_in_a_cookie_that_no_script_and_no_other_site_has'),
    'Ctrl-C ends a command at once': ('cli.py', '    at_interrupt(signal.SIG_DFL)\n', '', 'test_cli.py::test_ctrl_c_does_not_wait_for_a_thread_that_imports'),
    'Ctrl-C that was switched off': ('cli.py', 'if ours and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:', 'if ours:',
        'test_cli.py::test_ctrl_c_is_still_ignored_where_it_was_switched_off'),
    'paths outside the folders': ('loader.py', "    return any(real == root or real.startswith(root.rstrip(os.sep)+os.sep) for root in roots)", '    return True',
                                  'test_app.py::test_a_link_that_leads_out_is_not_found'),
    'a number with too many digits': ('notebook.py', "&(?:#[0-9]{1,7}|", '&(?:#[0-9]+|', 'test_faults.py::test_the_work_grows_with_the_text_and_not_with_its_square'),
    'the largest file': ('notebook.py', "if size > largest:", 'if False:', 'test_faults.py::test_a_file_of_two_gigabytes_and_a_bomb_are_named_in_bounded_memory'),
    'outputs that are left out unread': ('notebook.py', "if size <= large:", 'if True:', 'test_loader.py::test_a_notebook_with_200_mb_of_outputs_is_read_in_bounded_memory'),
    'vectors that are not numbers': ('store.py', "if not np.isfinite(np.frombuffer(b''.join(row for row,_ in rows), np.float16)).all():", 'if False:',
        'test_index.py::test_vectors_that_are_not_numbers_are_refused'),
    'vectors that are not numbers, in Milvus': ('remote.py', 'if not np.isfinite(made).all():', 'if False:',
        'test_scale.py::test_vectors_that_are_not_numbers_are_refused_everywhere'),
    'vectors that are not numbers, from many processes': ('corpus.py', 'if not np.isfinite(made).all():', 'if False:',
        'test_scale.py::test_vectors_that_are_not_numbers_are_refused_everywhere'),
    'vectors that are not numbers, in a file': ('corpus.py', 'if any(len(vector) != size or not np.isfinite(vector).all() for', 'if any(len(vector) != size for',
        'test_cli.py::test_a_damaged_parquet_file_is_named'),
    'nothing but regular files': ('notebook.py', "if not stat.S_ISREG(mode): raise fail('unreadable', 'not a file')", 'pass',
        'test_loader.py::test_a_pipe_and_a_device_are_not_read'),
    'no pipe is hashed': ('store.py', "if not stat.S_ISREG(info.st_mode): return", 'if False: return', 'test_index.py::test_a_pipe_is_neither_opened_nor_hashed'),
    'no pipe is an index': ('store.py', 'if not stat.S_ISREG(os.stat(file).st_mode): return None', 'pass', 'test_index.py::test_a_pipe_is_neither_opened_nor_hashed'),
    'no pipe is a Parquet file': ('corpus.py', "if not Path(file).is_file(): return", 'if not Path(file).exists(): return', 'test_cli.py::test_a_damaged_parquet_file_is_named'),
    'elements of MathML': ('page.py', "if re.fullmatch(r'm[a-z]{1,15}', element.tag) else", 'if True else', 'test_app.py::test_only_elements_of_mathml_are_drawn'),
    'links to the web and to mail': ('page.py', "if not re.match(r'(https?://|mailto:)', target, re.I):", 'if False:',
        'test_app.py::test_links_lead_to_the_web_or_to_a_mail_program'),
    'ids of cells': ('notebook.py', r"or not re.fullmatch(r'[\w-]{1,64}', cell_id) or", 'or', 'test_loader.py::test_the_id_of_a_cell_is_word_characters_or_made_anew'),
    'the length of a question': ('page.py', "printable(params.get(name, ''))[:2000]", "printable(params.get(name, ''))", 'test_app.py::test_a_question_has_a_length'),
    "the length of an agent's question": ('mcp.py', 'query[:2000]', 'query', 'test_mcp.py::test_an_endless_question_is_cut_as_on_the_page'),
    'the length of drawn markdown': ('page.py', 'markdown_reader().render(printable(source[:most_chars])', 'markdown_reader().render(printable(source)',
        'test_app.py::test_what_is_drawn_of_a_cell_has_a_length'),
    'the length of drawn code': ('page.py', 'coloured_parts(printable(source[:most_chars])', 'coloured_parts(printable(source)', 'test_app.py::test_what_is_drawn_of_a_cell_has_a_length'),
    'the length of what is coloured': ('page.py', 'most_coloured = 4_000', 'most_coloured = 20_000', 'test_app.py::test_colours_take_bounded_time_in_every_language'),
    'the languages that are coloured': ('page.py', 'if not (cut and coloured & set(lexer.aliases)):', 'if not cut:', 'test_app.py::test_colours_take_bounded_time_in_every_language'),
    'the length of other text': ('page.py', 'Pre(cell.source[:most_chars])', 'Pre(cell.source)', 'test_app.py::test_what_is_drawn_of_a_cell_has_a_length'),
    'links that lead out, among what is similar': ('app.py', '        return hits.filter(lambda hit: is_inside(hit.path, self.roots))[:top_k]', '        return hits[:top_k]',
        'test_app.py::test_more_like_this_shows_nothing_that_lies_outside'),
    'links that lead out, among what is found': ('app.py', '        hits = hits.filter(lambda hit: is_inside(hit.path, self.roots))[:top_k]', '        hits = hits[:top_k]',
        'test_app.py::test_more_like_this_shows_nothing_that_lies_outside'),
    'no web sockets': ('app.py', "if scope['type'] != 'http':", 'if False:', 'test_app.py::test_a_web_socket_is_closed_before_anything_is_asked'),
    'one worker at a time': ('behind.py', "    with FileLock(f'{file}.lock', timeout=seconds, mode=0o600): yield", '    yield',
        'test_behind.py::test_a_thread_steps_back_for_questions_and_another_process'),
    'only vectors of the same model are lent': ('store.py', "if all(info.get(key) == made_with[key] for key in ('model', 'revision')): yield db", 'yield db',
        'test_behind.py::test_only_real_vectors_of_the_same_model_are_borrowed'),
    'only real vectors are lent': ('store.py', "real = 'and real=1' if", "real = '' if",
        'test_behind.py::test_only_real_vectors_of_the_same_model_are_borrowed'),
    'which passages a matrix is of': ('store.py', 'if self.loaded is None or self.loaded.edition != edition:', 'if self.loaded is None:',
        'test_behind.py::test_a_cleared_and_refilled_file_is_not_taken_for_the_old_one'),
    'the file that is there now': ('store.py', 'if place_of(self.file) != self.place:', 'if False:',
        'test_behind.py::test_a_program_whose_file_was_deleted_goes_on_in_the_new_one'),
    'the format check of a worker': ('store.py', "elif self.db.pragma('user_version') != format_version:", 'elif False:',
        'test_behind.py::test_a_worker_of_an_older_version_stops_and_has_nothing_to_say'),
    'a worker makes no index': ('store.py', 'apsw.SQLITE_OPEN_CREATE if kind else 0', 'apsw.SQLITE_OPEN_CREATE',
        'test_behind.py::test_a_worker_makes_no_index'),
    'room for the last words': ('behind.py', "    note.touch(0o600); note.write_text(' '*room)\n", '    note.touch()\n',
        'test_behind.py::test_a_full_disk_in_the_worker_is_told_by_the_next_search'),
    'questions go first': ('behind.py', 'while self.questions and not self.stopped:', 'while False:',
        'test_behind.py::test_a_thread_steps_back_for_questions_and_another_process'),
}

def red(name, work):
    "Does the test of a guard fail without it? Also how many failed, as pytest says it"
    file,code,other,test = guards[name]
    path = work/'semsearch'/file
    text = path.read_text()
    if text.count(code) != 1: return False,f'the code is there {text.count(code)} times'
    head = 'from fastcore.xml import NotStr\n' if 'NotStr' in other else ''
    path.write_text(text.replace('\n# %%', f'\n{head}# %%', 1).replace(code, other) if head else text.replace(code, other))
    try:
        done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', f'tests/{test}'], cwd=work, capture_output=True, text=True,
                              timeout=600, env=dict(os.environ, PYTHONPATH=str(work), PYTHONDONTWRITEBYTECODE='1'))
        return done.returncode == 1,done.stdout.strip().splitlines()[-1].strip('= ')
    except subprocess.TimeoutExpired: return True,'it did not end'
    finally: path.write_text(text)

def main(names):
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)/'semsearch'
        work.mkdir()
        for part in ('semsearch', 'tests', 'tools'): shutil.copytree(root/part, work/part, ignore=shutil.ignore_patterns('__pycache__'))
        for part in ('settings.ini', 'pyproject.toml'): shutil.copy(root/part, work)
        print('| without | test | |\n|---|---|---|', flush=True)
        for name in names:
            found,said = red(name, work)
            failed += not found
            print(f'| {name} | `{guards[name][3].split("::")[1]}` | {"red" if found else "**not noticed**"}: {said} |', flush=True)
    return failed

if __name__ == '__main__': sys.exit(bool(main(sys.argv[1:] or list(guards))))
