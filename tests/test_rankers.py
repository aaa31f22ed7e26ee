"What would not read well in the chapter: a real SentencePiece vocabulary, damaged folders, hostile texts."
import json, os, threading
os.environ.setdefault('HF_HUB_OFFLINE', '1')
from pathlib import Path
import numpy as np, pytest, torch
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5EncoderModel, T5ForConditionalGeneration, T5Tokenizer
from semsearch.encoder import ModelError
from semsearch.index import NotebookIndex
from semsearch.ranker import CrossEncoderRanker, MeanRanker, Ranker
from semsearch.rankers import (CausalLMRanker, DuoT5Ranker, Explanation, LateInteractionRanker, MonoT5Ranker, RankT5Ranker,
                               StoredLateInteractionRanker, early_layer_embeddings, explain, pack_tokens, unpack_tokens)
from semsearch.t5 import answer_ids, cut_to, load_tokenizer

words = 'Query Document Document0 Document1 Relevant true yes no red green blue the of'.split()

@pytest.fixture(scope='session')
def castorini(tmp_path_factory):
    "A checkpoint as castorini publishes them: config.json, pytorch_model.bin, and a spiece.model made by SentencePiece itself"
    spm = pytest.importorskip('sentencepiece', reason='sentencepiece is not installed'); pytest.importorskip('google.protobuf')
    folder,rng = tmp_path_factory.mktemp('monot5'),np.random.default_rng(0)
    every = [*words, 'false', *'123456789']
    text = folder/'text.txt'
    text.write_text('\n'.join(' '.join(rng.choice(every, 12)) for _ in range(2000)))
    spm.SentencePieceTrainer.train(input=str(text), model_prefix=str(folder/'spiece'), vocab_size=80, pad_id=0, eos_id=1,
                                   unk_id=2, bos_id=-1, model_type='unigram', hard_vocab_limit=False, minloglevel=2)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=256, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
                                                decoder_start_token_id=0)).eval()
    model.config.architectures = ['T5ForConditionalGeneration']; model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder/'pytorch_model.bin')
    with pytest.raises(ModelError, match='Pickled weights could run code'): MonoT5Ranker(folder, cache=False).rank('red', ['blue'])
    T5ForConditionalGeneration.from_pretrained(folder, use_safetensors=False).save_pretrained(folder) # as the chapter says
    return folder

@pytest.fixture(scope='session')
def toy(tmp_path_factory):
    "The same with a vocabulary written down"
    folder = tmp_path_factory.mktemp('t5')
    pieces = ['<pad>', '</s>', '<unk>', *[f'▁{word}' for word in [*words, 'false']], '▁', ':', 'true', 'false']
    tokenizer = T5Tokenizer(vocab=[(piece, -2.) for piece in pieces + [f'<extra_id_{i}>' for i in reversed(range(100))]])
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
                                        decoder_start_token_id=0)).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

def test_token_ids_of_a_spiece_model(castorini):
    import sentencepiece
    theirs,ours = sentencepiece.SentencePieceProcessor(str(castorini/'spiece.model')),load_tokenizer(castorini)
    assert answer_ids(ours, ['true', 'false']) == [theirs.piece_to_id('▁true'), theirs.piece_to_id('▁false')]
    assert theirs.unk_id() not in answer_ids(ours, ['true', 'false'])
    prompt = 'Query: red Document: blue red Relevant:'
    assert ours(prompt).input_ids == [*theirs.encode(prompt), theirs.eos_id()]
    assert ours.convert_tokens_to_ids('<extra_id_10>') == len(ours) - 11
    assert MonoT5Ranker(castorini, half=False, cache=False).rank('red', ['red blue', 'green'])[0]['score'] > 0

def test_the_score_is_what_generate_would_say(castorini):
    mono = MonoT5Ranker(castorini, half=False, cache=False)
    one = mono.loaded
    batch = one.tokenizer(['Query: red Document: blue red Relevant:'], return_tensors='pt')
    found = one.model.generate(**batch, max_new_tokens=1, output_logits=True, return_dict_in_generate=True, do_sample=False).logits[0]
    expected = torch.softmax(found[:,answer_ids(one.tokenizer, ['true', 'false'])], 1)[0,0]
    assert abs(mono.predict([('red', 'blue red')])[0] - expected) < 1e-5

def test_continuing_pieces_are_not_the_answer(toy):
    tokenizer = load_tokenizer(toy)
    assert tokenizer.convert_ids_to_tokens(answer_ids(tokenizer, ['true', 'false'])) == ['▁true', '▁false']
    assert tokenizer.convert_tokens_to_ids('true') != answer_ids(tokenizer, ['true'])[0]

@pytest.mark.parametrize('answers', [('maybe', 'no'), ('yes', 'yes'), ('redgreen', 'no'), ('true', 'Ω')])
def test_answers_that_are_no_tokens(toy, answers):
    with pytest.raises(ModelError, match='must begin with a token of its own'):
        MonoT5Ranker(toy, words=answers, cache=False).rank('red', ['blue'])

def test_wrong_architectures(tmp_path, toy):
    BertForSequenceClassification(BertConfig(vocab_size=30, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                             intermediate_size=32, num_labels=1)).save_pretrained(tmp_path/'bert')
    T5EncoderModel(T5Config(vocab_size=130, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)).save_pretrained(tmp_path/'half')
    for kind in (MonoT5Ranker, RankT5Ranker, DuoT5Ranker):
        with pytest.raises(ModelError, match='encoder-decoder'): kind(tmp_path/'bert', cache=False).rank('a', ['b', 'c'])
        with pytest.raises(ModelError, match='no weights for'): kind(tmp_path/'half', cache=False).rank('a', ['b', 'c'])
        with pytest.raises(ModelError, match='no model at'): kind(tmp_path/'nothing', cache=False).rank('a', ['b', 'c'])
    with pytest.raises(ModelError): CausalLMRanker(toy, cache=False).rank('a', ['b'])

@pytest.mark.parametrize('kind', [MonoT5Ranker, RankT5Ranker])
def test_order_batches_and_padding_do_not_matter(toy, kind):
    ranker,rng = kind(toy, half=False, cache=False),np.random.default_rng(1)
    pairs = [(str(rng.choice(words)), ' '.join(rng.choice(words, rng.integers(1, 40)))) for _ in range(20)]
    together = ranker.predict(pairs)
    assert np.allclose([ranker.predict([pair])[0] for pair in pairs], together, atol=1e-4)
    assert np.allclose(ranker.predict(pairs, batch_size=7), together, atol=1e-4)
    assert np.allclose(ranker.predict(pairs[::-1])[::-1], together, atol=1e-4)
    assert len(set(together.round(4))) > 10 # not all the same

def test_long_and_strange_texts(toy):
    ranker = MonoT5Ranker(toy, half=False, cache=False, max_length=64)
    strange = ['', ' ', '{query} {0} {}', 'red '*5000, '\x00\u202e', '🙂'*300, 'a'*3000]
    scores = ranker.predict([('red', text) for text in strange])
    assert np.isfinite(scores).all() and ((scores >= 0) & (scores <= 1)).all()
    tokenizer = ranker.loaded.tokenizer
    for prompt in ranker.fill([('red', text) for text in strange]):
        assert prompt.endswith('Relevant:') and len(tokenizer(prompt).input_ids) <= 64
    with pytest.warns(UserWarning, match='query is longer'): ranker.predict([('red '*200, 'blue')])

def test_cut_to_keeps_the_beginning(toy):
    tokenizer = load_tokenizer(toy)
    assert cut_to(tokenizer, 'red green blue', 2) == 'red green' and cut_to(tokenizer, 'red', 5) == 'red'

def test_duo(toy):
    duo = DuoT5Ranker(toy, half=False, cache=False)
    texts = ['red', 'green', 'blue red', 'red']
    table = duo.preferences('red', texts[:3])
    assert np.allclose(table.diagonal(), .5)
    by_hand = [sum(table[i,j] + 1 - table[j,i] for j in range(3) if j != i)/4 for i in range(3)]
    scores = duo.predict([('red', text) for text in texts])
    assert np.allclose(scores[:3], by_hand, atol=1e-6) and scores[0] == scores[3]
    assert np.allclose(duo.predict([('red', text) for text in texts[::-1]])[::-1], scores, atol=1e-4)
    assert duo.rank('red', []) == [] and duo.identity is None
    with pytest.raises(ValueError, match='60 documents make 3,540 pairs; at most 50'): duo.rank('red', [str(i) for i in range(60)])
    assert duo.rank('red', ['red'])[0]['score'] == .5
    assert duo.plan('red', [str(i) for i in range(50)]).pairs == 2450
    slow = DuoT5Ranker(toy, half=False, cache=False, patience=0.)
    with pytest.warns(UserWarning, match='10 documents make 90 pairs: about'): slow.rank('red', [f'red {i}' for i in range(10)])

def test_scores_are_remembered(toy, tmp_path):
    ranker = MonoT5Ranker(toy, half=False, cache=tmp_path/'scores.db')
    pairs = [('red', 'blue'), ('red', 'red')]
    first = ranker.predict(pairs)
    again = MonoT5Ranker(toy, half=False, cache=tmp_path/'scores.db')
    assert np.allclose(again.predict(pairs), first) and again.cache.hits == 2
    assert RankT5Ranker(toy, half=False, cache=False).identity != ranker.identity
    assert MonoT5Ranker(toy, half=False, max_length=64, cache=False).identity != ranker.identity
    assert MonoT5Ranker(toy, half=False, words=('yes', 'no'), cache=False).identity != ranker.identity
    duo = DuoT5Ranker(toy, half=False, cache=tmp_path/'scores.db')
    duo.rank('red', ['red', 'blue', 'green'])
    assert len(ranker.cache) == 2+6

def test_touched_weights_are_not_remembered(toy, tmp_path):
    model,tokenizer = T5ForConditionalGeneration.from_pretrained(toy).eval(),load_tokenizer(toy)
    ranker = MonoT5Ranker((model, tokenizer), half=False, cache=tmp_path/'scores.db')
    before = ranker.predict(('red', 'blue'))
    with torch.no_grad(): model.shared.weight.mul_(1.5)
    assert ranker.predict(('red', 'blue')) != before and ranker.cache.hits == 0
    MonoT5Ranker((model, tokenizer), half=True, cache=False).predict(('red', 'blue'))
    assert model.dtype == torch.float32 # a model that was passed in stays as it was

def test_large_logits_keep_their_order(toy):
    scores = RankT5Ranker(toy, cache=False).read(np.array([[-90.], [-1.], [0.], [17.], [30.], [31.]], np.float32))
    assert (np.diff(scores.astype(np.float32)) > 0).all() and scores.min() > 0 and scores.max() < 1

def test_half_precision_is_near(toy):
    pairs = [('red', 'blue'), ('red', 'red green'), ('blue', 'the of')]
    assert np.allclose(MonoT5Ranker(toy, half=True, cache=False).predict(pairs),
                       MonoT5Ranker(toy, half=False, cache=False).predict(pairs), atol=.05)

def test_token_vectors_in_the_file(tmp_path):
    (tmp_path/'a.ipynb').write_text(json.dumps(dict(cells=[dict(cell_type='markdown', metadata={}, source='# Sorting lists', id='a')],
                                                    metadata={}, nbformat=4, nbformat_minor=5)))
    index = NotebookIndex(tmp_path, index=tmp_path/'i.db'); index.update()
    text = index.search('sorting', refresh=False)[0].embed_text
    stored = StoredLateInteractionRanker(index, cache=False)
    scores = stored.predict([('sort', text), ('sort', 'not in the index')])
    assert len(stored) == 2 and stored.forget_unused() == 1 and len(stored) == 1
    other = StoredLateInteractionRanker(tmp_path/'i.db', cache=False)
    assert np.allclose(other.predict([('sort', text)]), scores[:1], atol=1e-5)
    plain = LateInteractionRanker(index.encoder, cache=False)
    assert np.allclose(plain.predict([('sort', text), ('sort', 'not in the index')]), scores, atol=.01)
    assert plain.identity != stored.identity
    index.update(); assert index.search('sorting')[0].embed_text == text # the index works on beside the new table

def test_packing_keeps_zero_and_size():
    vectors = np.array([[0., 0.], [1., -.5]], np.float32)
    assert np.allclose(unpack_tokens(pack_tokens(vectors), 2), vectors, atol=.01)
    assert unpack_tokens(pack_tokens(np.zeros((0, 4), np.float32) + 0), 4).shape == (0, 4)

def test_explanations_are_escaped():
    found = explain('a <script> tag', 'no <script>alert(1)</script> here & there \x1b[2J')
    assert '<script>' not in found._repr_html_() and '&lt;' in found.html() and '\x1b[2J' not in found.ansi() + found.html()
    assert found.passage[slice(*found.spans[0])] == 'no' and len(found.weights) == len(found.spans)
    assert ''.join(text for text,_ in found.parts()) == found.passage

@pytest.mark.parametrize('width', [1, 5, 20, 1000])
def test_windows(width):
    rng = np.random.default_rng(width)
    for _ in range(50):
        text = ' '.join('x'*n for n in rng.integers(1, 9, rng.integers(1, 12)))
        spans = [(i, i+len(word)) for i,word in zip(np.cumsum([0, *(len(w)+1 for w in text.split())]).tolist(), text.split())]
        found = Explanation('q', text, spans, rng.normal(size=len(spans)), .5, 'hand')
        start,end = found.window(width)
        assert end-start <= width or (start, end) in spans
        assert ''.join(part for part,_ in found.parts(width)).strip('…') == text[start:end]
        gain = lambda a, b: sum(max(w, 0) for w,(i,j) in zip(found.weights, spans) if a <= i and j <= b)
        assert gain(start, end) >= max(gain(i, i+width) for i,_ in spans) - 1e-9

def test_whatever_a_search_holds_is_explained():
    late,reader = LateInteractionRanker(cache=False),CrossEncoderRanker(half=False, cache=False)
    both,query,text = MeanRanker(dict(reader=reader, late=late), [.5, .5]),'how to sort a list','Lists\nUse sorted(list, key=len).'
    assert explain(query, text, both).method == 'alignment' and text in late.known
    reader.predict((query, text)) # from now on both texts are remembered, in half precision
    found = explain(query, text, reader)
    assert found.method == 'gradient' and abs(found.score - reader.predict((query, text))) < 1e-5 and np.isfinite(found.weights).all()
    assert not any(' 0' in name for name in reader.full[0].known) # nothing blended is remembered
    with pytest.raises(ValueError, match='no attention of its own'): explain(query, text, reader, 'attention')
    every = early_layer_embeddings(reader, [text, query])
    assert np.allclose(every[2], early_layer_embeddings(reader, [text, query], 2), atol=1e-6)

def test_no_torch_at_import():
    import subprocess, sys
    code = 'import sys, semsearch.rankers, semsearch.inside; assert not {"torch","transformers","sentence_transformers","matplotlib"} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True)
