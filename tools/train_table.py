"""Train the table of token vectors that ships in semsearch/weights.

    python tools/train_table.py DATA OUTPUT

A text is the sum of its tokens' rows, and the rows learn to make that sum point where the embedded model puts the text.
DATA holds notebooks in `bulk/OWNER__NAME` (or all of it in `bulk.tar.gz`), `train/sections.jsonl.gz` (repo, ...) and
`train/queries.jsonl.gz` (sid, query: a number of a section). A first table is trained without some repositories. On
them the line is fitted that turns its cosines into real ones; then the table that ships is trained on everything.
OUTPUT gets the vectors of the embedded model, and in the end `table.safetensors` and `table.json`; killed and started
again, it does not encode anything twice."""
import argparse, json, tarfile, time
from pathlib import Path
import numpy as np
from fastcore.foundation import L
from sentence_transformers.util import pairwise_cos_sim
from semsearch.encoder import Encoder, embedded_name, embedded_sha256, sha256_of
from semsearch.loader import load_passages
from semsearch.passages import embedded_tokenizer, tokenize
from semsearch.train import run_trainer
from train_reader import kept, read

def notebooks(data, output):
    "The folder of the notebooks, unpacked if need be"
    if (data/'bulk').exists(): return data/'bulk'
    if not (output/'bulk').exists():
        with tarfile.open(data/'bulk.tar.gz') as archive: archive.extractall(output/'part', filter='data')
        (output/'part'/'bulk').rename(output/'bulk')
    return output/'bulk'

def passages_by_repository(folder):
    "Every different passage, and where it was first seen: {text: OWNER/NAME}"
    found = {}
    for passage in load_passages(folder):
        repository = Path(passage.path).relative_to(folder).parts[0].replace('__', '/', 1)
        found.setdefault(passage.embed_text, repository)
    return found

def queries_by_repository(data):
    "Every query, and where its answer is: {query: OWNER/NAME}"
    sections = read(data/'train'/'sections.jsonl.gz').itemgot('repo')
    return {row['query']: sections[row['sid']] for row in read(data/'train'/'queries.jsonl.gz')}

def teacher_vectors(texts, output, name, group=8192):
    "The vectors of the embedded model, group by group from files if they are there"
    encoder = Encoder()
    def encode(start): return encoder.encode(texts[start:start+group]).astype(np.float16)
    return np.concatenate([kept(output/f'{name}-{start:06}.npy', lambda: encode(start))
                           for start in range(0, len(texts), group)]).astype(np.float32)

def token_vectors(batch=1024):
    "What the embedded model makes of each token of its vocabulary when it stands alone"
    import torch
    model,tokenizer = Encoder(device='cpu').full,embedded_tokenizer()
    first,last = map(tokenizer.token_to_id, ('[CLS]', '[SEP]'))
    def encode(tokens):
        ids = torch.stack([torch.full_like(tokens, first), tokens, torch.full_like(tokens, last)], dim=1)
        return model(dict(input_ids=ids, attention_mask=torch.ones_like(ids)))['sentence_embedding'].numpy()
    with torch.no_grad():
        return np.concatenate([encode(t) for t in torch.arange(tokenizer.get_vocab_size()).split(batch)])

def first_rows(vectors, texts, rare):
    "Rows to begin with: the mean removed, and frequent tokens small"
    counts = np.zeros(len(vectors))
    for i in range(0, len(texts), 8192):
        ids = L(tokenize(texts[i:i+8192])).attrgot('ids').concat()
        counts += np.bincount(np.array(ids, np.int64), minlength=len(vectors))
    return ((vectors-vectors.mean(0))*(rare/(rare+counts/counts.sum()))[:,None]).astype(np.float32)

def static_model(rows, *more):
    "A table as a model of sentence-transformers, with more modules before the vectors are made unit length"
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_str(embedded_tokenizer().to_str())
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, rows), *more, Normalize()], device='cpu')

def train(rows, texts, vectors, folder, args):
    "Move the rows, and turn all of them by one matrix, until the sums point where the vectors do"
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
    from sentence_transformers.sentence_transformer.modules import Dense
    dim,start = rows.shape[1],time.perf_counter()
    turn = Dense(dim, dim, bias=False, activation_function=torch.nn.Identity(), init_weight=torch.eye(dim))
    model = static_model(rows.copy(), turn)
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder), num_train_epochs=args.epochs, per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate, warmup_steps=.05, weight_decay=0., seed=args.seed, save_strategy='no',
        report_to='none', disable_tqdm=True, logging_steps=10, dataloader_pin_memory=False, use_cpu=True)
    dataset = Dataset.from_dict(dict(text=texts, label=vectors))
    dataset.set_format('torch', columns=['label'], output_all_columns=True)
    folder.mkdir(exist_ok=True)
    loss = EmbedDistillLoss(model, distance_metric='cosine')
    history = run_trainer(SentenceTransformerTrainer(model, settings, dataset, loss=loss), folder)
    print(f'{len(texts)} texts, {time.perf_counter()-start:.0f} s, loss {history[-1][1]}', flush=True)
    with torch.no_grad(): return turn(dict(sentence_embedding=model[0].embedding.weight))['sentence_embedding'].numpy()

def quantise(rows):
    "Eight bits a number, and a scale for each row"
    scales = np.abs(rows).max(1).clip(1e-12)/127
    return dict(vectors=np.rint(rows/scales[:,None]).astype(np.int8), scales=scales.astype(np.float32))

def encode(table, texts):
    "Static vectors of texts"
    return static_model(table['vectors']*table['scales'][:,None]).encode(texts, batch_size=512)

def candidates(query, real, static, rng, most=100, others=50):
    "The real and the static cosines of what a search looks at, and of some other passages"
    a,b = real@query,static@query
    chosen = np.concatenate([np.argsort(-a)[:most], np.argsort(-b)[:most], rng.integers(len(a), size=others)])
    return np.stack([a, b])[:,np.unique(chosen)]

def calibrate(folders, seed):
    "The line from static to real cosines, fitted on (queries, real, static) of each folder"
    rng = np.random.default_rng(seed)
    real,static = np.concatenate([candidates(query, real, static, rng) for queries,real,static in folders
                                  for query in queries], axis=1).astype(float)
    slope,offset = np.polyfit(static, real, 1)
    left,raw = slope*static+offset-real,static-real
    print(f'{len(real)} pairs: real = {slope:.4f} static + {offset:.4f}, '
          f'correlation {np.corrcoef(real, static)[0,1]:.3f}, mean error {np.abs(left).mean():.4f}, '
          f'without the line {np.abs(raw).mean():.4f}', flush=True)
    return float(slope), float(offset)

def write(table, folder, **settings):
    "Put a table at its place, whole or not at all"
    from safetensors.numpy import save
    def put(file, make):
        make(file.with_suffix('.part'))
        file.with_suffix('.part').rename(file)
    put(folder/'table.safetensors', lambda part: part.write_bytes(save(table)))
    made = dict(base=embedded_name, base_sha256=embedded_sha256, sha256=sha256_of(folder/'table.safetensors'))
    put(folder/'table.json', lambda part: part.write_text(json.dumps({**made, **settings}, indent=1)))

def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('data', type=Path); parser.add_argument('output', type=Path)
    for name,kind,value in (('epochs', int, 3), ('batch-size', int, 512), ('learning-rate', float, 1e-3),
                            ('rare', float, 1e-3), ('word-share', float, .5), ('seed', int, 1)):
        parser.add_argument(f'--{name}', type=kind, default=value)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    passages = passages_by_repository(notebooks(args.data, args.output))
    queries = queries_by_repository(args.data)
    texts,asked = list(passages),list(queries)
    vectors = np.concatenate([teacher_vectors(given, args.output, name)
                              for given,name in ((texts, 'texts'), (asked, 'queries'))])
    place = np.array([*passages.values(), *queries.values()])
    rows = first_rows(kept(args.output/'tokens.npy', token_vectors), texts+asked, args.rare)
    def learn(chosen, name):
        lessons = [text for text,wanted in zip(texts+asked, chosen) if wanted]
        return quantise(train(rows, lessons, vectors[chosen], args.output/name, args))
    aside = np.unique(place[:len(texts)])[::6]
    trial = learn(~np.isin(place, aside), 'trial')
    is_text = np.arange(len(place)) < len(texts)
    folders = []
    for name in aside:
        mine = (place == name) & is_text
        static = encode(trial, [texts[i] for i in np.flatnonzero(mine)])
        folders.append((vectors[(place == name) & ~is_text], vectors[mine], static))
        near = pairwise_cos_sim(vectors[mine], static).mean()
        print(f'{name}: {mine.sum()} passages, mean cosine {near:.3f}', flush=True)
    slope,offset = calibrate(folders, args.seed)
    write(learn(np.full(len(place), True), 'all'), args.output, slope=slope, offset=offset,
          static_word_share=args.word_share)

if __name__ == '__main__': main()
