"What the rankers and their cache promise."
import ctypes, itertools, os, subprocess, sys
from pathlib import Path
import apsw, numpy as np, pytest, torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification
from semsearch.encoder import Encoder, ModelError, load_encoder, on_all_cores
from semsearch.loader import load_passages
from semsearch.cache import ScoreCache, score_key
from semsearch import bert
from semsearch.ranker import CrossEncoderRanker, LateInteractionRanker, Ranker, SharedLateRanker
from semsearch.start import LightEncoder, LightLate, LightReader, few

query,documents = 'sort a list',['how to sort', 'order a pizza', '', 'a list of lists ' * 40, 'ß 表 \x00 "quoted"']
pairs = [(query, document) for document in documents]

def make_model(folder, seed):
    "A small real cross-encoder with random weights"
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=1)
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=2.) # scores that differ
    model.save_pretrained(folder); load_encoder().tokenizer.save_pretrained(folder)
    return str(folder)

@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp('models')
    return [make_model(place/name/'same-name', seed) for seed,name in enumerate('ab')]

def fresh(model, **kwargs): return CrossEncoderRanker(model, half=False, cache=False).predict(pairs)

def test_two_models_of_one_name_never_share_a_score(folders):
    cache = ScoreCache(':memory:')
    for model in folders*2:
        found = CrossEncoderRanker(CrossEncoder(model), half=False, cache=cache).predict(pairs)
        assert np.allclose(found, fresh(model), atol=1e-5)
    assert not np.allclose(fresh(folders[0]), fresh(folders[1]), atol=1e-3)
    assert (cache.hits, cache.misses) == (10, 10)

def test_another_limit_prompt_precision_or_text_is_another_score(folders):
    def ranker(limit=256, half=False, **prompt):
        return CrossEncoderRanker(CrossEncoder(folders[0], max_length=limit, **prompt), half=half, cache=False)
    kinds = [ranker(), ranker(limit=64), ranker(half=True), ranker(prompts={'q': 'Query: '}, default_prompt_name='q')]
    assert all(one.identity != other.identity for one,other in itertools.combinations(kinds, 2))
    assert kinds[0].identity == ranker().identity
    template = score_key('m', (query, 'Title\ntext')),score_key('m', (query, 'text'))
    assert template[0] != template[1]

def test_training_on_makes_another_model(folders):
    cache,model = ScoreCache(':memory:'),CrossEncoder(folders[0])
    ranker = CrossEncoderRanker(model, half=False, cache=cache)
    before = ranker.predict(pairs)
    with torch.no_grad():
        for weight in model.parameters(): weight.mul_(1.5)
    after = ranker.predict(pairs)
    assert not np.allclose(before, after, atol=1e-3) and cache.hits == 0

def test_rank_agrees_with_the_library_and_keeps_ties_in_order(folders):
    model = CrossEncoder(folders[0], max_length=512)
    ours,theirs = CrossEncoderRanker(model, half=False, cache=False),{row['corpus_id']: row['score'] for row in model.rank(query, documents)}
    for row in ours.rank(query, documents): assert abs(row['score'] - theirs[row['corpus_id']]) < 1e-5
    assert [row['corpus_id'] for row in ours.rank(query, documents[:1]*4)] == [0, 1, 2, 3]
    assert ours.rank(query, []) == [] and len(ours.rank(query, documents, top_k=2, return_documents=True, batch_size=2)) == 2

def test_raw_scores_are_squeezed_once(folders):
    plain,raw = CrossEncoder(folders[0]),CrossEncoder(folders[0], activation_fn=torch.nn.Identity())
    found = [CrossEncoderRanker(model, half=False, cache=False).predict(pairs) for model in (plain, raw)]
    assert np.allclose(*found, atol=1e-6)
    logits = raw.predict([list(pair) for pair in pairs])
    assert np.allclose(found[0], 1/(1+np.exp(-logits)), atol=1e-5)

def test_the_end_of_a_long_document_is_read(folders):
    ranker = CrossEncoderRanker(CrossEncoder(folders[0], max_length=64), half=False, cache=False)
    filler = 'Nothing to see here, move along. '*50
    best = max(['alpha', 'beta', 'gamma', 'delta'], key=lambda word: ranker.predict((query, word*3)))
    assert ranker.predict((query, f'{filler}\n\n{best*3}')) >= ranker.predict((query, best*3)) - 1e-4

def test_a_cache_that_is_damaged_later_is_done_without(folders, tmp_path):
    cache = ScoreCache(tmp_path/'scores.db')
    ranker = CrossEncoderRanker(folders[0], half=False, cache=cache)
    expected = ranker.predict(pairs)
    cache.db.execute('drop table scores')
    with pytest.warns(UserWarning, match='scores.db'): assert np.allclose(ranker.predict(pairs), expected, atol=1e-5)

def test_a_foreign_file_is_not_touched(tmp_path):
    apsw.Connection(str(tmp_path/'photos.db')).execute('create table photos(id)')
    with pytest.warns(UserWarning, match='another kind'): ranker = LateInteractionRanker(cache=tmp_path/'photos.db')
    assert ranker.cache is None
    assert apsw.Connection(str(tmp_path/'photos.db')).execute('select name from sqlite_master').get == 'photos'

program = '''
import sys
from semsearch.cache import ScoreCache
from semsearch.ranker import Ranker
ranker = Ranker(lambda pairs: [len(text)/1000 for _,text in pairs])
ranker.identity,ranker.cache = 'length',ScoreCache(sys.argv[1], size=500)
for start in range(0, 400, 20):
    pairs = [('q', 'x'*(i % 300)) for i in range(start, start+200)]
    assert all(abs(score - len(text)/1000) < 1e-6 for score,(_,text) in zip(ranker.predict(pairs), pairs))
'''

def test_four_processes_share_a_cache(tmp_path):
    file = tmp_path/'scores.db'
    running = [subprocess.Popen([sys.executable, '-c', program, str(file)], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[1] for process in running] == ['']*4
    cache = ScoreCache(file)
    assert cache.db.pragma('integrity_check') == 'ok' and 0 < len(cache) <= 550

@pytest.mark.parametrize('scorer', [lambda pairs: [float('nan')]*len(pairs), lambda pairs: [.5], lambda pairs: [[.5]]*len(pairs)])
def test_a_scorer_that_fails_leaves_nothing_in_the_cache(scorer):
    ranker = Ranker(scorer)
    ranker.identity,ranker.cache = 'bad',ScoreCache(':memory:')
    with pytest.raises(ValueError): ranker.predict(pairs)
    assert len(ranker.cache) == 0

def test_half_precision_hardly_changes_the_order():
    from scipy.stats import kendalltau
    texts = list(load_passages(Path(__file__).parents[1]/'nbs').attrgot('embed_text'))[:400:4]
    def reader(half): return CrossEncoderRanker(half=half, cache=False)
    def late(half): return LateInteractionRanker(Encoder(half=half), cache=False)
    def shared(half): return SharedLateRanker(Encoder(half=half), reader(half), cache=False)
    def mixed(half): return SharedLateRanker(Encoder(half=not half), reader(half), cache=False)
    for make in (reader, late, shared, mixed):
        full,half = (make(half).predict([(query, text) for text in texts]) for half in (False, True))
        assert kendalltau(full, half).statistic >= .97

def test_the_built_in_reader_in_half_precision_remembers_what_it_read():
    ranker = CrossEncoderRanker(half=True, cache=False)
    first = ranker.predict(pairs)
    assert np.allclose(ranker.predict(pairs), first, atol=.01) # all texts from memory
    again = ranker.predict([('another question', documents[0]), (query, 'new'), *pairs]) # some of them
    assert np.allclose(again[2:], first, atol=.02)

def test_what_is_remembered_stays_within_its_bound():
    reader = CrossEncoderRanker(half=False, cache=False)
    late = SharedLateRanker(Encoder(half=False), reader, remember=8, cache=False)
    reader.full[0].remember = 8
    long = [(query, f'{i} ' + 'a list of lists '*100) for i in range(20)]
    expected = LateInteractionRanker(Encoder(half=False), cache=False).predict(long)
    for _ in range(2): assert np.allclose(late.predict(long), expected, atol=1e-3)
    reader.predict(long)
    for known in (late.known, reader.fast[0].known):
        held = sum(vectors.untyped_storage().nbytes() for vectors in known.values())
        assert len(known) == 8 and 7*256*384*2 <= held <= 8*256*384*2 # no view of a whole batch, nothing in single precision

@pytest.mark.skipif(sys.platform != 'linux' or not hasattr(ctypes.CDLL(None), 'malloc_trim'), reason='asks glibc')
def test_memory_is_given_back_after_a_round_of_batches():
    def resident(): return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')
    torch.ones(30_000_000, dtype=torch.int8) # from now on glibc takes what is smaller from its heap
    pieces = [torch.ones(50_000) for _ in range(200)]
    del pieces[::2]
    before = resident()
    assert list(on_all_cores(len, ['a'])) == [1]
    assert before-resident() > .9*100*200_000

# The embedded models in numpy

hard = ['', ' ', '語'*300, 'word '*700, 'x = [i**2 for i in range(10)] # 😀', 'a', *documents]
wider = [(query, text) for text in hard] + [('why ' * 300, text) for text in hard[:5]]

def test_numpy_and_torch_give_the_same_vectors_and_scores():
    light,library = LightEncoder(),Encoder(device='cpu', half=False)
    assert np.allclose(light.encode(hard), library.encode(hard), atol=1e-5)
    assert np.allclose(light.encode_query(query), library.encode_query(query), atol=1e-5)
    reader = LightReader(light, cache=False)
    late = LightLate(light, reader, cache=False)
    assert np.allclose(reader.predict(wider), CrossEncoderRanker(device='cpu', half=False, cache=False).predict(wider), atol=1e-4)
    assert np.allclose(late.predict(wider), LateInteractionRanker(library, cache=False).predict(wider), atol=1e-4)
    learned = late.take_learned()
    assert np.allclose([learned[text] for text in hard], library.encode(hard), atol=1e-5)
    assert len(reader.predict([])) == len(late.predict([])) == 0

def test_numpy_and_torch_share_scores_of_one_precision_only():
    cache,light = ScoreCache(':memory:'),LightEncoder()
    late = LightLate(light, LightReader(light, cache=cache), cache=cache)
    mine = late.predict(pairs)
    same = LateInteractionRanker(Encoder(device='cpu', half=False), cache=cache)
    assert np.array_equal(same.predict(pairs), mine) and (cache.hits, cache.misses) == (5, 5)
    assert LateInteractionRanker(Encoder(device='cpu', half=True), cache=cache).identity != late.identity

def test_numpy_leaves_many_passages_to_the_library():
    light = LightEncoder()
    light.encode(documents)
    assert 'library' not in vars(light)
    assert np.allclose(light.encode(['word']*few)[0], light.encode_query('word'), atol=.02) and 'library' in vars(light)

def test_weights_are_mapped_and_not_copied():
    model = bert.load_bert()
    assert not any(array.flags.owndata or array.flags.writeable for array in model.weights.values())
    pair = bert.PairBert(model)
    own = [name for name,array in pair.joint.weights.items() if array is not model.weights[name]]
    assert len(own) == 18 and all(name.startswith(('encoder.layer.3', 'encoder.layer.4', 'encoder.layer.5')) for name in own)

@pytest.mark.parametrize('file, content', [('reader.json', b'{'), ('reader.json', b'{}'), ('reader.json', None), ('reader.safetensors', b'x'), ('reader.safetensors', None)])
def test_a_damaged_reader_is_named(tmp_path, monkeypatch, file, content):
    for path in bert.weights.glob('reader.*'): (tmp_path/path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(bert, 'weights', tmp_path)
    bert.PairBert(bert.load_bert())
    if content is None: (tmp_path/file).unlink()
    else: (tmp_path/file).write_bytes(content)
    with pytest.raises(ModelError, match='missing or damaged'): bert.PairBert(bert.load_bert())
