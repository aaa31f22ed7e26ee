"What a comparison promises: the reference's figures, clocks that agree with others, and passages encoded once."
import json, os, random, statistics, subprocess, sys, time
from pathlib import Path
import pytest
from semsearch.compare import (QuerySetError, compare, evaluate, known_item_queries, load_queries, rank_biased_overlap,
                               rank_correlation, score_runs)
from semsearch.cost import disk_bytes, find_weights
from semsearch.encoder import Encoder
from semsearch.index import NotebookIndex
from semsearch.passages import embedded_folder
from semsearch.cache import ScoreCache
from semsearch.ranker import CrossEncoderRanker, LateInteractionRanker, Ranker
from semsearch.search import NotebookSearch

def cell(kind, source, i): return dict(cell_type=kind, id=f'c{i}', metadata={}, source=source,
                                       **(dict(outputs=[], execution_count=None) if kind == 'code' else {}))

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp('notebooks')
    for topic in ('cooking rice', 'searching the web', 'plotting a curve', 'training a model'):
        cells = [cell('markdown', f'# All about {topic}', 0)] + [
            cell('markdown', f'## Part {i} of {topic}\n\nHere is what {topic} needs in step {i}: {i*7} small things.', i)
            for i in range(1, 31)]
        nb = dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)
        (place/f'{topic.split()[0]}.ipynb').write_text(json.dumps(nb))
    return place

@pytest.fixture(scope='module')
def index(folder, tmp_path_factory):
    found = NotebookIndex(folder, index=tmp_path_factory.mktemp('index')/'ix.db')
    found.update()
    return found

queries = [dict(qid=str(i), query=text, rels={name: 2}) for i,(text,name) in enumerate([
    ('how do I cook rice', 'cooking.ipynb'), ('search the internet', 'searching.ipynb'), ('draw a graph', 'plotting.ipynb'),
    ('fit a model to data', 'training.ipynb')])]

def random_run(rng, names):
    return {name: rng.choice([0., .25, .25 + 1e-10, .5, 1, rng.random()]) for name in rng.sample(names, rng.randint(1, len(names)))}

@pytest.mark.parametrize('seed', range(10))
def test_measures_equal_pytrec_eval_with_ties_missing_documents_and_ungraded_queries(seed):
    import ir_measures
    from ir_measures import AP, P, R, RR, Success, nDCG
    rng = random.Random(seed)
    names = [f'{letter}{i}.ipynb' for letter in 'aZ_é' for i in range(8)]
    runs = {str(i): random_run(rng, names) for i in range(40) if i % 6}
    rels = {str(i): {name: rng.randint(0, 2) for name in rng.sample(names, rng.randint(1, 8))} if i % 7 else {} for i in range(38)}
    names = {'nDCG@10': nDCG@10, 'MRR': RR, 'MAP': AP, 'recall@5': R@5, 'success@1': Success@1, 'nDCG': nDCG, 'precision@3': P@3}
    ours = score_runs(runs, rels, list(names))
    graded = {qid: found for qid,found in rels.items() if found}
    assert set(ours) == set(graded)
    theirs = {(m.query_id, str(m.measure)): m.value for m in ir_measures.pytrec_eval.iter_calc(list(names.values()), graded, runs)}
    for qid in graded:
        for name,measure in names.items(): assert ours[qid][name] == pytest.approx(theirs[qid, str(measure)], abs=1e-9), (qid, name)

def test_hits_with_equal_scores_are_measured_as_pytrec_eval_would(folder):
    import ir_measures
    found = {query['qid']: {name: .5 for name in ('cooking.ipynb', 'plotting.ipynb', 'searching.ipynb')} for query in queries}
    ours = evaluate(found, queries)['nDCG@10']
    rels = {query['qid']: query['rels'] for query in queries}
    assert ours == pytest.approx(ir_measures.pytrec_eval.calc_aggregate([ir_measures.nDCG@10], rels, found)[ir_measures.nDCG@10])

def test_mrr_is_cut_and_tied_like_the_other_measures():
    run = {'q': {f'{i:02}.ipynb': .5 for i in range(12)}}
    assert score_runs(run, {'q': {'11.ipynb': 1}}, ['MRR@10', 'success@1'])['q'] == {'MRR@10': 1, 'success@1': 1}
    assert score_runs(run, {'q': {'00.ipynb': 1}}, ['MRR@10', 'MRR'])['q'] == {'MRR@10': 0, 'MRR': pytest.approx(1/12)}

def test_nothing_to_measure_is_an_error(folder, tmp_path):
    with pytest.raises(ValueError, match='nothing to compare'): evaluate('bm25', queries, tmp_path, index=tmp_path/'x.db')
    with pytest.raises(ValueError, match='nothing to compare'): evaluate(NotebookIndex(tmp_path, index=':memory:'), queries)
    with pytest.raises(ValueError, match='found nothing'): evaluate(lambda query: [], queries)
    with pytest.raises(QuerySetError, match='no queries'): evaluate('bm25', [], folder)
    empty = tmp_path/'empty.jsonl'; empty.write_text('\n')
    with pytest.raises(QuerySetError, match='empty.jsonl'): evaluate('bm25', empty, folder)
    with pytest.raises(ValueError, match='at least one model'): evaluate([], queries, folder)

def test_each_bi_encoder_encodes_each_passage_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv('SEMSEARCH_INDEX_DIR', str(tmp_path))
    seen,encode = [],Encoder.encode
    def counted(self, texts, progress=None):
        texts = list(texts); seen.extend(texts)
        return encode(self, texts, progress)
    monkeypatch.setattr(Encoder, 'encode', counted)
    evaluate(['bm25', 'dense', 'hybrid', 'search'], queries, folder, candidates=5, timed=3)
    assert seen and len(seen) == len(set(seen))
    once = len(seen)
    compare(['dense', 'hybrid', 'late'], [query['query'] for query in queries], folder, candidates=5)
    assert len(seen) == once

def test_latency_agrees_with_an_outside_clock_and_orders_models(index):
    def slowly(ms): return Ranker(lambda pairs: time.sleep(ms/1000) or [len(text) for _,text in pairs])
    many = [dict(query, qid=f'{query["qid"]}-{i}') for query in queries for i in range(3)]
    found = evaluate(dict(fast=slowly(30), slow=slowly(90)), many, index=index)
    for name,ms in (('fast', 30), ('slow', 90)):
        ranker,outside,texts = slowly(ms),[],[f'document {i}' for i in range(100)]
        for _ in range(8):
            start = time.perf_counter(); ranker.rank('x', texts); outside.append((time.perf_counter()-start)*1000)
        assert found.costs[name].p50_ms == pytest.approx(statistics.median(outside), rel=.15)
        assert found.costs[name].documents == 100
    assert found.costs['fast'].p50_ms < found.costs['slow'].p50_ms

def test_a_clock_is_not_answered_from_a_cache_and_forgets_what_was_read(index, tmp_path):
    cache,taken = ScoreCache(tmp_path/'scores.db'),[]
    class Slow(Ranker):
        identity,batched = 'slow',False
        def __init__(self): self.cache,self.known = cache,{}
        def score(self, pairs):
            new = {text for _,text in pairs}-set(self.known)
            time.sleep(.05 + .1*bool(new)); self.known.update(dict.fromkeys(new)); taken.append(len(pairs))
            return [len(text) for _,text in pairs]
    ranker = Slow()
    cost = evaluate({'slow': ranker}, queries, index=index).costs['slow']
    assert 50 <= cost.p50_ms < 90 and 150 <= cost.new_ms < 220
    assert ranker.cache is cache and len(cache) > 0
    once = len(taken)
    evaluate({'slow': ranker}, queries, index=index, timed=1)
    assert len(taken) == once + 1 + 4 # quality comes from the cache: only the warm-up and the clock read

def test_sizes_are_those_of_the_files_and_shared_weights_count_once(index):
    encoder = index.encoder
    late,cross,whole = LateInteractionRanker(encoder, cache=False),CrossEncoderRanker(cache=False),NotebookSearch(index=index, cache=False)
    for ranker in (late, cross, whole.ranker): ranker.rank('warm up', ['x'])
    files = sum(file.stat().st_size for file in embedded_folder().rglob('*') if file.is_file())
    count = lambda *sources: sum(tensor.numel() for tensor in find_weights(sources))
    assert disk_bytes([late]) == files and count(late) == count(index) == count(index, late)
    weights = Path(sys.modules['semsearch'].__file__).parent/'weights'
    assert disk_bytes([cross]) == files + sum(file.stat().st_size for file in weights.rglob('*') if file.is_file())
    assert count(cross) > 1e6 and count(index, whole.ranker) > count(index)

def test_t5_and_causal_rankers_take_part(index, tmp_path):
    import torch
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer
    from semsearch.rankers import MonoT5Ranker
    pieces = ['<pad>', '</s>', '<unk>', '▁true', '▁false', '▁Query', '▁Document', '▁Relevant', '▁rice', '▁', ':']
    tokenizer = T5Tokenizer(vocab=[(piece, -2.) for piece in pieces])
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
                                                decoder_start_token_id=0)).eval()
    found = compare(['bm25', MonoT5Ranker((model, tokenizer), cache=False)], 'rice', index=index, candidates=10)
    assert found.names == ['bm25', 'MonoT5Ranker'] and not found.errors
    assert len(found['MonoT5Ranker']) == 10
    model.save_pretrained(tmp_path/'t5')
    assert 'wrap it in the ranker' in compare(['bm25', str(tmp_path/'t5')], 'rice', index=index).errors[str(tmp_path/'t5')]

def test_known_items_are_a_query_set_that_a_search_answers(index):
    known = known_item_queries(index.passages_at(range(len(index.load().ids))), limit=20)
    assert len(load_queries(known)) == 20 and {query['type'] for query in known} == {'heading'}
    assert evaluate('bm25', known, index=index)['cell@5'] > .8

def test_one_failing_model_does_not_lose_the_others(index):
    def broken(query): raise MemoryError('too big')
    found = compare(['bm25', broken, 'no/such-model', Ranker(lambda pairs: [1])], 'web', index=index, candidates=10)
    assert found.names == ['bm25'] and list(found.errors) == ['broken', 'no/such-model', 'Ranker']
    measured = evaluate(['bm25', broken], queries, index=index)
    assert measured.names == ['bm25'] and isinstance(measured.errors['broken'], MemoryError)
    assert 'broken  MemoryError: too big' in repr(measured)

def test_dictionaries_and_functions_and_paths_are_matched(index):
    perfect = {query['qid']: dict(query['rels']) for query in queries}
    assert evaluate(perfect, queries)['nDCG@10'] == 1
    answers = {query['query']: list(query['rels']) for query in queries}
    found = evaluate({'mine': lambda query: answers.get(query, []), 'theirs': perfect}, queries)
    assert found['mine'] == pytest.approx(found['theirs'], nan_ok=True)
    full = {qid: [f'/home/me/nbs/{name}' for name in run] for qid,run in perfect.items()}
    assert evaluate(full, queries)['MRR@10'] == 1

@pytest.mark.parametrize('line,problem', [
    ('{"qid": "2", "query": "x", "rels": {"a": 3}}', 'from 0 to 2'), ('[1]', 'expected an object'), ('{"query": "x", "rels": {}}', '"qid"'),
    ('{"qid": "2", "query": "x"}', '"rels"'), ('{"qid": "2", "query": "x", "rels": {}, "best_cells": {"a": -1}}', 'best_cells'),
    ('{"qid": "1", "query": "x", "rels": {}}', 'used in'), ('nonsense', 'not JSON'), ('{"qid": "2", "query": "x", "rels": {}, "type": 3}', '"type"')])
def test_query_sets_name_the_line(tmp_path, line, problem):
    file = tmp_path/'queries.jsonl'
    file.write_text('\n{"qid": "1", "query": "ok", "rels": {"a": 1}}\n' + line + '\n')
    with pytest.raises(QuerySetError, match=problem) as caught: load_queries(file)
    assert f'{file}:3' in str(caught.value) and f'{file}:2:' not in str(caught.value).replace('used in '+str(file)+':2', '')

def test_query_sets_with_a_mark_of_order_or_of_another_encoding(tmp_path):
    file = tmp_path/'queries.jsonl'
    file.write_bytes('\ufeff{"qid": "1", "query": "größer", "rels": {}}\r\n'.encode())
    assert load_queries(file)[0]['query'] == 'größer'
    file.write_bytes('{"qid": "1", "query": "größer", "rels": {}}'.encode('latin-1'))
    with pytest.raises(QuerySetError, match='UTF-8'): load_queries(file)

def test_overlap_and_correlation_on_random_lists():
    from scipy.stats import kendalltau
    rng = random.Random(0)
    for _ in range(50):
        first,second = [rng.sample(range(30), rng.randint(1, 20)) for _ in range(2)]
        overlap = rank_biased_overlap(first, second)
        assert 0 <= overlap <= 1 and overlap == pytest.approx(rank_biased_overlap(second, first))
        assert rank_biased_overlap(first, first) == pytest.approx(1)
        both = [thing for thing in first if thing in second]
        if len(both) > 1: assert rank_correlation(first, second) == pytest.approx(
            kendalltau([first.index(x) for x in both], [second.index(x) for x in both]).statistic)

def test_nothing_of_a_notebook_becomes_markup(tmp_path):
    nasty = '<script>alert(1)</script>'
    nb = dict(cells=[cell('markdown', f'# {nasty} & title\n\nSome words on {nasty}', 0)], metadata={}, nbformat=4, nbformat_minor=5)
    (tmp_path/'<b>.ipynb').write_text(json.dumps(nb))
    found = compare('bm25', 'words <i>', tmp_path, index=':memory:')
    shown = found._repr_html_()
    assert '<script>' not in shown and '<i>' not in shown and '<b>.' not in shown
    assert json.loads(found.to_json())['query'] == 'words <i>'
