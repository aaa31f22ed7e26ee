"""Train the reader that ships in semsearch/weights.

    python tools/train_reader.py DATA OUTPUT

First all layers read query and passage apart, and each query of a batch has the texts of all others to tell from its
own; then the last layers read both together, each pair for itself. DATA holds `sections.jsonl.gz` (repo, title,
headings, markdown, code), `queries.jsonl.gz` (sid, query: the section is the answer) and `pairs/*.jsonl.gz` (query,
text, label). OUTPUT gets checkpoints and, in the end, `model`; killed and started again, it goes on."""
import argparse, gzip, json
from pathlib import Path
import numpy as np
from fastcore.foundation import L
from sentence_transformers.util import cos_sim, pairwise_cos_sim
from semsearch.encoder import Encoder
from semsearch.notebook import Cell, Notebook
from semsearch.passages import split_groups
from semsearch.pairs import mine_negatives, read_pairs
from semsearch.train import train_cross_encoder

def read(file):
    with gzip.open(file, 'rt', encoding='utf-8') as lines: return L(map(json.loads, lines))

def as_notebook(section):
    "A section as a notebook of its own, so that it is cut as the product cuts"
    heads = ''.join(f"{'#'*(level+2)} {head}\n\n" for level,head in enumerate(section['headings']))
    cells = [Cell(0, 'a', 'markdown', heads + (section['markdown'] or '')), Cell(1, 'b', 'code', section['code'] or '')]
    return Notebook(section['notebook'], section['title'] or Path(section['notebook']).stem, 'python',
                    L(cells).filter(lambda cell: cell.source.strip()))

class Known:
    "A bi-encoder that knows the vectors of its texts by heart"
    device = 'cpu'
    def __init__(self, vectors): self.vectors = vectors
    def encode_document(self, texts, **kwargs): return np.stack([self.vectors[text] for text in texts])
    encode_query = encode_document
    def similarity(self, a, b): return cos_sim(a, b)
    def similarity_pairwise(self, a, b): return pairwise_cos_sim(a, b)

def kept(file, make):
    "What make gives, from a file if it is there"
    if not file.exists():
        found = make()
        np.save(file.with_suffix('.part.npy'), found)
        file.with_suffix('.part.npy').rename(file)
    return np.load(file)

def known_vectors(texts, file):
    "A bi-encoder for these texts"
    texts = sorted(set(texts))
    return Known(dict(zip(texts, kept(file, lambda: Encoder().encode(texts, progress=lambda done: None)))))

def from_sections(data, output, count):
    "For each query the nearest passage of its section, and passages of the same repository that look like it"
    sections,queries = read(data/'sections.jsonl.gz'),read(data/'queries.jsonl.gz')
    wanted = queries.itemgot('sid').unique()
    cut = next(split_groups([wanted.map(lambda sid: as_notebook(sections[sid]))]))
    passages = {sid: list(found.attrgot('embed_text')[:5]) for sid,found in zip(wanted, cut) if found}
    queries = queries.filter(lambda row: row['sid'] in passages)
    model = known_vectors([*sum(passages.values(), []), *queries.itemgot('query')], output/'sections.npy')
    lists,vectors = [],model.vectors
    for repo,rows in queries.groupby(lambda row: sections[row['sid']]['repo']).items():
        corpus = {text: sid for sid,found in passages.items() if sections[sid]['repo'] == repo for text in found}
        own = {row['query']: row['sid'] for row in rows}
        def nearest(query): return max(passages[own[query]], key=lambda text: vectors[text] @ vectors[query])
        mined = mine_negatives([dict(query=query, text=nearest(query)) for query in own], list(corpus),
                               ('dense', 'bm25'), count+4, model=model, absolute_margin=-.1)
        for row in mined: # other passages of the same section are no negatives
            answer,*others = row['texts']
            texts = [answer, *(text for text in others if corpus[text] != own[row['query']])][:count+1]
            lists.append(dict(query=row['query'], texts=texts, labels=[1] + [0]*(len(texts)-1), group=repo))
    return lists

def from_pairs(data, output, each, count):
    "Judged questions, so many of each collection, and answers to others that look right"
    lists = []
    for file in sorted((data/'pairs').glob('*.gz')):
        pairs = read_pairs(file).filter(lambda pair: pair['query'].strip() and pair['text'].strip())
        pairs = pairs.map(lambda pair: dict(pair, text=pair['text'][:1500]))
        answered = pairs.filter(lambda pair: pair['label']).itemgot('query').unique()[:each]
        pairs = pairs.filter(lambda pair: pair['query'] in set(answered))
        model = known_vectors([*pairs.itemgot('text'), *pairs.itemgot('query')], output/f'{file.name}.npy')
        mined = mine_negatives(pairs, None, ('dense', 'bm25'), count, model=model, absolute_margin=-.1)
        lists += [dict(query=row['query'], texts=[row['texts'][0], *row['texts'][sum(row['labels']):]],
                       labels=[1] + [0]*row['labels'].count(0), group=file.name) for row in mined]
    return lists

def training_lists(data, output, pairs, negatives):
    "Every query with its answer and texts that look like one, from a file if it is there"
    file = output/'lists.json'
    if not file.exists():
        lists = from_sections(data, output, negatives) + from_pairs(data, output, pairs, negatives)
        file.write_text(json.dumps(lists))
    return json.loads(file.read_text())

def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('data', type=Path); parser.add_argument('output', type=Path)
    for name,kind,value in (('apart-steps', int, 60), ('joint-steps', int, 240), ('rank', int, 32), ('apart', int, 3),
                            ('negatives', int, 3), ('pairs', int, 100), ('tokens', int, 144), ('seed', int, 1),
                            ('learning-rate', float, 3e-4)):
        parser.add_argument(f'--{name}', type=kind, default=value)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    lists = training_lists(args.data, args.output, args.pairs, args.negatives)
    print(len(lists), 'lists', sum(len(row['texts']) for row in lists), 'pairs', flush=True)
    from semsearch.reader import PairReader, as_cross_encoder
    from transformers import set_seed
    def train(reader, name, steps, batch_size):
        train_cross_encoder(lists, args.output/name, as_cross_encoder(reader), max_steps=steps, batch_size=batch_size,
                            learning_rate=args.learning_rate, save_steps=5, seed=args.seed)
        return reader
    set_seed(args.seed)
    settings = dict(rank=args.rank, frozen=3, max_length=args.tokens, remember=20000)
    first = train(PairReader(apart=6, **settings), 'apart', args.apart_steps, 24)
    joint = PairReader(apart=args.apart, **settings)
    joint.load_state_dict(first.state_dict())
    train(joint, 'joint', args.joint_steps, 12)
    joint.max_length = 256
    joint.save(args.output/'model', half=True)

if __name__ == '__main__': main()
