"""Train a reader of the kind that ships in semsearch/weights (its MODEL_CARD.md says how that one differs).

    python tools/train_reader.py DATA OUTPUT

DATA holds `sections.jsonl.gz` (repo, title, headings, markdown, code), `queries.jsonl.gz` (sid, query: the section is the
answer) and `pairs/*.jsonl.gz` (query, text, label). OUTPUT gets checkpoints and, in the end, `model`; killed, it goes on."""
import argparse, gzip, json
from pathlib import Path
import numpy as np
from fastcore.foundation import L
from sentence_transformers.util import cos_sim, pairwise_cos_sim
from semsearch.encoder import Encoder
from semsearch.loader import split_notebooks
from semsearch.notebook import Cell, Notebook
from semsearch.train import mine_negatives, read_pairs, train_cross_encoder

def read(file):
    with gzip.open(file, 'rt', encoding='utf-8') as lines: return L(map(json.loads, lines))

def as_notebook(section):
    "A section as a notebook of its own, so that it is cut as the product cuts"
    heads = ''.join(f"{'#'*(level+2)} {head}\n\n" for level,head in enumerate(section['headings']))
    cells = [Cell(0, 'a', 'markdown', heads + section['markdown'] or ''), Cell(1, 'b', 'code', section['code'] or '')]
    return Notebook(section['notebook'], section['title'] or Path(section['notebook']).stem, 'python', L(cells).filter(lambda cell: cell.source.strip()))

class Known:
    "A bi-encoder that knows the vectors of its texts by heart"
    device = 'cpu'
    def __init__(self, vectors): self.vectors = vectors
    def encode_document(self, texts, **kwargs): return np.stack([self.vectors[text] for text in texts])
    encode_query = encode_document
    def similarity(self, a, b): return cos_sim(a, b)
    def similarity_pairwise(self, a, b): return pairwise_cos_sim(a, b)

def encode(texts, file):
    "Vectors of texts, kept in a file"
    texts = sorted(set(texts))
    if file.exists() and len(found := np.load(file)['vectors']) == len(texts): return dict(zip(texts, found))
    vectors = Encoder().encode(texts, progress=lambda done: None)
    np.savez(file, vectors=vectors)
    return dict(zip(texts, vectors))

def lists_from_queries(data, output, negatives):
    "For each query the passage of its section that is nearest, and hard negatives from the same repository"
    sections,queries = read(data/'sections.jsonl.gz'),read(data/'queries.jsonl.gz')
    wanted = queries.map(lambda row: row['sid']).unique()
    cut = split_notebooks(wanted.map(lambda sid: as_notebook(sections[sid])))
    passages = {sid: list(found.attrgot('embed_text')[:5]) for sid,found in zip(wanted, cut) if found}
    queries = queries.filter(lambda row: row['sid'] in passages)
    texts = [text for found in passages.values() for text in found]
    vectors = encode([*texts, *queries.itemgot('query')], output/'vectors.npz')
    repo_of,lists = {sid: sections[sid]['repo'] for sid in passages},[]
    for repo,rows in queries.groupby(lambda row: repo_of[row['sid']]).items():
        corpus = {text: sid for sid,found in passages.items() if repo_of[sid] == repo for text in found}
        best = {row['query']: max(passages[row['sid']], key=lambda text: vectors[text] @ vectors[row['query']]) for row in rows}
        own = {row['query']: row['sid'] for row in rows}
        mined = mine_negatives([dict(query=query, text=text) for query,text in best.items()], list(corpus),
                               ('dense', 'bm25'), 4*negatives, model=Known(vectors), absolute_margin=-.1)
        for n,row in enumerate(mined): # other passages of the same section are no negatives
            texts = [row['texts'][0], *(t for t in row['texts'][1:] if corpus[t] != own[row['query']])][:1+(negatives if n%2 else 0)]
            lists.append(dict(query=row['query'], texts=texts, labels=[1] + [0]*(len(texts)-1), group=repo, sid=own[row['query']]))
    return lists

def lists_from_pairs(data, each):
    "Judged questions, at most so many of each collection"
    lists = []
    for file in sorted((data/'pairs').glob('*.gz')):
        pairs = read_pairs(file).filter(lambda pair: pair['query'].strip() and pair['text'].strip())
        pairs = pairs.map(lambda pair: dict(pair, text=pair['text'][:1500]))
        mined = mine_negatives(pairs, [], 'random', 1)
        lists += [dict(row, group=file.name) for row in mined[:each]]
    return lists

def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('data', type=Path); parser.add_argument('output', type=Path)
    for name,kind,value in (('steps', int, 120), ('look-steps', int, 300), ('rank', int, 32), ('looks', int, 1), ('frozen', int, 3), ('negatives', int, 2),
                            ('pairs', int, 250), ('seed', int, 1)):
        parser.add_argument(f'--{name}', type=kind, default=value)
    parser.add_argument('--learning-rate', type=float, default=3e-4); parser.add_argument('--look-rate', type=float, default=3e-4); parser.add_argument('--loss', default='listwise')
    parser.add_argument('--without', nargs='*', default=[], help='repositories to leave out')
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    lists = lists_from_queries(args.data, args.output, args.negatives)
    lists = [row for row in lists if row['group'] not in args.without] + lists_from_pairs(args.data, args.pairs)
    print(len(lists), 'queries', flush=True)
    from sentence_transformers import CrossEncoder
    from semsearch.reader import PairReader
    from transformers import set_seed
    set_seed(args.seed)
    model = CrossEncoder(modules=[PairReader(rank=args.rank, looks=args.looks, frozen=args.frozen, max_length=160)])
    common = dict(loss=args.loss, batch_size=24, save_steps=20, seed=args.seed)
    if args.looks: model[0].look.requires_grad_(False) # it begins when the encoder is done
    model = train_cross_encoder(lists, args.output/'encoder', model, max_steps=args.steps, learning_rate=args.learning_rate, **common)
    print(model.history, flush=True)
    if args.looks:
        model.requires_grad_(False)
        for part in (model[0].look, model[0].head, model[0].weigh): part.requires_grad_(True)
        model[0].remember = 20000
        model = train_cross_encoder(lists, args.output/'look', model, max_steps=args.look_steps, learning_rate=args.look_rate, **common)
        print(model.history)

if __name__ == '__main__': main()
