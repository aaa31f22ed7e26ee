"What training promises: a run that was killed ends where an undisturbed one ends, and bad data is refused."
import importlib.util, os, signal, subprocess, sys, time
import pytest

missing = [name for name in ('datasets', 'accelerate', 'bm25s') if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"the extra train is not installed: {', '.join(missing)}")

program = '''
import sys, torch
torch.set_num_threads(1)
from semsearch.train import train_cross_encoder
words = 'sort list table line plot point fit file path cell text token query score index model'.split()
lists = [dict(query=f'how to {a} a {b}', texts=[f'{a} the {b}', f'{b} of a pizza', f'never {a} this'], labels=[1, 0, 0])
         for a in words[:5] for b in words[5:13]]
train_cross_encoder(lists, sys.argv[1], sys.argv[2], batch_size=4, max_steps=10, save_steps=2, seed=3, device='cpu', learning_rate=1e-3)
'''

def tiny(folder):
    "A small cross-encoder with dropout, made on the spot"
    import torch
    from semsearch.passages import embedded_folder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                             intermediate_size=64, num_labels=1)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(embedded_folder(), local_files_only=True).save_pretrained(folder)
    return str(folder)

def start(output, model):
    env = dict(os.environ, HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1')
    return subprocess.Popen([sys.executable, '-c', program, str(output), model], env=env, stderr=subprocess.PIPE, text=True)

def weights(output):
    from safetensors.torch import load_file
    return load_file(next((output/'model').glob('*.safetensors')))

@pytest.mark.parametrize('kind', ['library', 'untrained'])
def test_a_killed_run_ends_where_an_undisturbed_one_ends(tmp_path, kind):
    model = tiny(tmp_path/'tiny') if kind == 'library' else kind
    whole = start(tmp_path/'whole', model)
    assert whole.wait(timeout=300) == 0, whole.stderr.read()
    killed = start(tmp_path/'killed', model)
    deadline = time.time()+300
    while not (tmp_path/'killed'/'checkpoint-4'/'trainer_state.json').exists():
        assert killed.poll() is None and time.time() < deadline, killed.stderr.read()
        time.sleep(.02)
    killed.send_signal(signal.SIGKILL); killed.wait()
    assert not (tmp_path/'killed'/'model').exists()
    again = start(tmp_path/'killed', model)
    assert again.wait(timeout=300) == 0, again.stderr.read()
    first,second = weights(tmp_path/'whole'),weights(tmp_path/'killed')
    assert first.keys() == second.keys()
    assert max(float((first[name].float()-second[name].float()).abs().max()) for name in first) < 1e-6

def test_a_folder_of_another_run_is_refused(tmp_path):
    from semsearch.train import train_cross_encoder
    model,lists = tiny(tmp_path/'tiny'),[dict(query='sort', texts=['sort a list', 'a pizza'], labels=[1, 0])]*2
    train_cross_encoder(lists, tmp_path/'run', model, max_steps=1, device='cpu')
    with pytest.raises(ValueError, match='another folder'):
        train_cross_encoder(lists, tmp_path/'run', model, max_steps=1, device='cpu', seed=7)

def test_without_the_extra_the_error_says_what_to_install(tmp_path):
    code = '''
import sys
for name in ('datasets', 'accelerate', 'bm25s'): sys.modules[name] = None
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name in ('datasets', 'accelerate', 'bm25s') else find(name, *rest)
from semsearch.train import train_cross_encoder, mine_negatives
for call in (lambda: train_cross_encoder([], 'x'), lambda: mine_negatives([dict(query='a', text='b')], strategy='bm25')):
    try: call()
    except ImportError as error: print(error)
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.count("pip install 'semsearch[train]'") == 2, done.stderr
