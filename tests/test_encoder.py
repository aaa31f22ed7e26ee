"Who a model is"
import json, os, shutil, subprocess, sys
import pytest
from semsearch.encoder import Encoder, ModelError

program = 'import sys; from semsearch.encoder import Encoder; print(Encoder(sys.argv[1], "cpu").revision)'

def revision_elsewhere(model, seed):
    env = dict(os.environ, PYTHONHASHSEED=str(seed))
    return subprocess.run([sys.executable, '-c', program, model], capture_output=True, text=True, check=True, env=env).stdout.strip()

def test_a_revision_is_the_same_in_every_process_and_before_and_after_work(model):
    encoder = Encoder(model, 'cpu')
    before = encoder.revision
    encoder.encode(['sort a list '*200, 'pizza']); encoder.encode_query('sort')
    assert {before, encoder.revision} == {revision_elsewhere(model, 1)}

def edited(model, folder, file, **changes):
    "A copy of a model with other settings"
    shutil.copytree(model, folder)
    known = json.loads((folder/file).read_text())
    (folder/file).write_text(json.dumps({**known, **changes}))
    return str(folder)

edits = {'pooling': ('1_Pooling/config.json', dict(pooling_mode='cls')),
         'prompts': ('config_sentence_transformers.json', dict(prompts=dict(query='query: ', document='passage: '))),
         'limit': ('tokenizer_config.json', dict(model_max_length=64)),
         'activation': ('config.json', dict(hidden_act='relu')),
         'tokenizer': ('tokenizer_config.json', dict(do_lower_case=False))}

def test_a_copy_of_a_model_is_the_same_model(tmp_path, model):
    assert Encoder(str(shutil.copytree(model, tmp_path/'m')), 'cpu').revision == Encoder(model, 'cpu').revision

@pytest.mark.parametrize('what', edits)
def test_the_same_weights_with_other_settings_are_another_model(tmp_path, model, what):
    file,changes = edits[what]
    assert Encoder(edited(model, tmp_path/'m', file, **changes), 'cpu').revision != Encoder(model, 'cpu').revision

def test_a_model_is_found_in_the_home_of_the_user(tmp_path, monkeypatch, model):
    shutil.copytree(model, tmp_path/'m')
    monkeypatch.setenv('HOME', str(tmp_path)); monkeypatch.setenv('USERPROFILE', str(tmp_path))
    assert Encoder('~/m', 'cpu').revision == Encoder(model, 'cpu').revision

@pytest.mark.parametrize('limit', ['"many"', '-5', '0', '[1]', 'true'])
def test_a_limit_that_is_no_number_of_tokens_is_named(tmp_path, model, limit):
    import shutil; shutil.copytree(model, tmp_path/'model')
    for file in (tmp_path/'model').rglob('sentence_bert_config.json'): file.write_text('{"max_seq_length": %s, "do_lower_case": false}' % limit)
    with pytest.raises(ModelError, match='max_seq_length'): Encoder(str(tmp_path/'model'), 'cpu').limit
