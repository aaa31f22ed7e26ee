"The prompt: somebody types into the real program, at a terminal of its own."
import os, sys, time
from pathlib import Path
import pytest
from test_cli import environment, notebook, program
pexpect = pytest.importorskip('pexpect')

@pytest.fixture
def folder(tmp_path):
    (tmp_path/'nbs').mkdir()
    notebook(tmp_path/'nbs/cooking.ipynb', '# Cooking\nBoil the potatoes in salted water.', '## Later\nFry the potatoes in butter.')
    notebook(tmp_path/'nbs/travel.ipynb', '# Travel\nTake the night train.')
    (tmp_path/'editor.py').write_text('import sys; open(sys.argv[1], "w").write(sys.argv[2])')
    return tmp_path

def typed(folder, *args, **more):
    editor = f'{sys.executable} {folder}/editor.py {folder}/opened {{path}}#{{cell}}'
    env = dict(environment(folder, SEMSEARCH_EDITOR=editor, SEMSEARCH_BACKGROUND='0', TERM='xterm'), **more)
    return pexpect.spawn(program[0], [*program[1:], *args], env=env, cwd=str(folder), dimensions=(40, 120), timeout=60)

def wait_for(file):
    for _ in range(100):
        if file.exists() and file.read_text(): return file.read_text()
        time.sleep(.1)

@pytest.mark.parametrize('args', [(), ('ask', 'nbs')])
def test_hits_follow_the_keys_and_enter_opens_the_chosen_one(folder, args):
    child = typed(folder, *args)
    child.expect('semsearch>')
    child.send('potatoes')
    child.expect('cooking')
    time.sleep(2) # the second stage has read
    child.send('\x1b[B'); time.sleep(.5)
    child.send('\r')
    assert 'cooking.ipynb#cooking-' in wait_for(folder/'opened')
    child.sendcontrol('c')
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0

def test_without_prompt_toolkit_a_line_is_a_question_and_a_number_opens_a_hit(folder):
    (folder/'prompt_toolkit.py').write_text('raise ImportError("not installed")')
    child = typed(folder, 'ask', 'nbs', PYTHONPATH=f'{folder}:{Path(__file__).parent.parent}')
    child.expect('semsearch>')
    child.sendline('night train')
    child.expect('travel.ipynb:travel-0')
    child.sendline('1')
    assert wait_for(folder/'opened').endswith('travel.ipynb#travel-0')
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
