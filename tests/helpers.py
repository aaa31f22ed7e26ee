"Notebooks, a small real encoder, processes, and what an index holds: shared by the tests that try to break it."
import faulthandler, hashlib, json, multiprocessing, os, random
from contextlib import closing, contextmanager
from functools import cached_property
import apsw, numpy as np
from fastcore.basics import AttrDict
from semsearch.encoder import Encoder, weights_digest
from semsearch.index import NotebookIndex
from semsearch.passages import embedded_folder

soak = bool(os.environ.get('SEMSEARCH_SOAK'))
can_fork = 'forkserver' in multiprocessing.get_all_start_methods()
asked = 'how to sort a list'
modes = 'bm25','dense','hybrid'

# Real notebooks, and a real encoder: one layer, random weights

words = ('sort list order web search pizza model train plot table column join graph tree image sound file path test '
         'error loop class value query index vector token price week city river').split()

def prose(rng, count=6): return ' '.join(rng.choices(words, k=count))

def write(path, texts):
    "Save a notebook with one section for each text, at once as editors do"
    cells = [dict(id=f'c{i}', cell_type='markdown', metadata={}, source=f'## {text.split()[0]} {i}\n\n{text}')
             for i,text in enumerate(texts)]
    data = json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5))
    path.with_suffix('.part').write_text(data)
    os.replace(path.with_suffix('.part'), path)
    return path

def make_notebooks(folder, count, sections, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    for i in range(count): write(folder/f'n{i:02}.ipynb', [prose(rng) for _ in range(sections)])
    return folder

def save_model(folder, seed=20):
    "Save a bi-encoder of one layer that loads in no time"
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel
    bert,tiny = folder/'bert',folder/'tiny'
    torch.set_num_threads(1); torch.manual_seed(seed)
    sizes = dict(vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertModel(BertConfig(**sizes)).save_pretrained(bert)
    AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(bert)
    parts = [Transformer(str(bert), max_seq_length=256), Pooling(32), Normalize()]
    SentenceTransformer(modules=parts).save(str(tiny))
    return str(tiny)

def tiny_encoder(model):
    import torch
    torch.set_num_threads(1)
    encoder = Encoder(model, 'cpu', half=False)
    encoder.full, encoder.revision
    return encoder

class Remembering(Encoder):
    "An encoder that reads each text, and its own weights, once"
    @cached_property
    def revision(self): return weights_digest(self.full)
    def encode(self, texts, progress=None):
        known,texts = self.__dict__.setdefault('known', {}),list(texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, super().encode(new)))
        return np.stack([known[text] for text in texts]) if texts else super().encode([])

@contextmanager
def opened(folder, encoder, file):
    index = NotebookIndex(folder, encoder, file)
    try: yield index
    finally: index.db.close()

def answers(index, **kwargs):
    "What the index says, in a form that can be compared"
    def found(mode):
        hits = index.search(asked, 10**6, mode, **kwargs)
        return [(hit.path, hit.cell_index, hit.text, round(hit.score, 3)) for hit in hits]
    return {mode: sorted(found(mode)) for mode in modes}

def content(file):
    "All that an index file holds, read without the package, and without what may differ: row ids and times"
    with closing(apsw.Connection(str(file))) as db:
        assert db.pragma('integrity_check') == 'ok'
        db.execute("insert into words(words) values('integrity-check')")
        db.execute('create virtual table temp.terms using fts5vocab(main, words, row)')
        def ids(table): return list(db.execute(f'select id from {table} order by id'))
        assert ids('passages') == ids('words_docsize')
        columns = [row[1] for row in db.execute('pragma table_info(passages)') if row[1] != 'id']
        return AttrDict(passages=sorted(db.execute(f'select {",".join(columns)} from passages'), key=repr),
                        notebooks=sorted(db.execute('select path,digest,kind,reason from notebooks'), key=repr),
                        terms=sorted(db.execute('select term,doc,cnt from terms')),
                        vectors=dict(db.execute('select hash,vector from vectors')),
                        real=dict(db.execute('select hash,real from vectors')))

def check_same(mine, theirs):
    for part in ('notebooks', 'passages', 'terms', 'real'): assert mine[part] == theirs[part], part
    assert mine.vectors.keys() == theirs.vectors.keys()
    def numbers(found, key): return np.frombuffer(found.vectors[key], np.float16)
    for key in mine.vectors: np.testing.assert_allclose(numbers(mine, key), numbers(theirs, key), atol=2e-3)

def fresh_content(folder, encoder, file):
    with opened(folder, encoder, file) as index: index.update()
    return content(file)

def digests(folder): return {path.name: hashlib.sha256(path.read_bytes()).digest() for path in folder.glob('*.ipynb')}

# Processes

def report(pipe, step, *args):
    "Run a step in a child, and send what came of it"
    faulthandler.dump_traceback_later(120)
    try: pipe.send((True, step(*args)))
    except Exception as error: pipe.send((False, f'{type(error).__name__}: {error}'))

def start(processes, step, *args):
    mine,theirs = processes.Pipe()
    child = processes.Process(target=report, args=(theirs, step, theirs, *args), daemon=True)
    child.start(); theirs.close()
    return child,mine

def heard(pipe, seconds=180):
    "What a child says next; a child that says nothing is a fault too"
    assert pipe.poll(seconds), 'a process hangs'
    return pipe.recv()
