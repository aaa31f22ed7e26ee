"What a query says besides its words: phrases in double quotes, names that stand nowhere, and questions of another folder."
import json, subprocess
import pytest
from helpers import make_notebooks, opened, write
from semsearch.core import far
from semsearch.index import phrases, unquoted, unusual
from semsearch.ranker import Ranker
from semsearch.search import NotebookSearch
from test_cli import environment, program

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SEMSEARCH_INDEX_DIR', str(tmp_path/'cache'))
    monkeypatch.setenv('SEMSEARCH_BACKGROUND', '0')

@pytest.fixture
def folder(tmp_path):
    folder = make_notebooks(tmp_path/'nbs', 3, 10)
    write(folder/'kept.ipynb', ['sort the web by price', 'sorting the webs by price', 'price the web by sort',
                                'call pd.read_csv on a file, then\n\nsort   THE\nweb', 'pip install -e with --no-cache'])
    return folder

@pytest.fixture
def index(folder, encoder, tmp_path):
    with opened(folder, encoder, tmp_path/'i.db') as index:
        index.update()
        yield index

def found(index, query, **kwargs): return index.search(query, 100, refresh=False, **kwargs)

# Quoted phrases

@pytest.mark.parametrize('mode', ['hybrid', 'dense', 'bm25'])
@pytest.mark.parametrize('query', ['"sort the web"', '“Sort the  Web”', 'which city? "sort the web"', '"sort the web" "price"', "„sort-the-web“, city"])
def test_only_passages_that_hold_a_phrase_are_hits(index, query, mode):
    "In one order, next to each other, without regard to capitals, blanks and line breaks, but not with other endings"
    hits = found(index, query, mode=mode)
    assert hits and not hits.notes and hits.query == query.strip()
    assert all('sort the web' in ' '.join(hit.text.lower().split()) for hit in hits)
    assert len(hits) == (1 if 'price' in query else 2)

def test_scores_are_those_of_the_words_without_quotes(index):
    plain = {hit.hash: hit.scores for hit in found(index, 'sort the web by price')}
    for hit in found(index, '"sort the web" by price'): assert hit.scores == plain[hit.hash]

@pytest.mark.parametrize('query', [
    'pip install -e', '--no-cache', 'web -sort', "don't sort 'the web'", 'sort "the web', '"', '""', '" "', '"-"', '“', '”sort“',
    'a 5" disk and a 3" disk', 'print("sort web")', 'df["web"]', 'NEAR("web" sort)', 'sort AND NOT web*', '"²"', '" \x00 "', '"_"'])
def test_anything_else_is_plain_text(index, query):
    assert [hit.hash for hit in found(index, query)] or '²' in query
    if not phrases(query): assert unquoted(query) == query

def test_a_name_is_a_phrase_like_any_other(index):
    assert len(found(index, '"read csv"')) == len(found(index, '"pd.read_csv" on a file')) == 1
    assert len(found(index, 'how to "pip install -e"')) == 1

def test_a_phrase_that_nobody_holds_is_said_and_answered_without(index):
    hits,plain = found(index, '"web the sort" city'),found(index, 'web the sort city')
    assert hits.notes == ['no passage contains "web the sort"'] and not plain.notes
    assert [hit.hash for hit in hits] == [hit.hash for hit in plain]
    both = found(index, '"sort the web" "pip install"')
    assert both.notes == ['no passage contains "sort the web" or "pip install"'] and len(both) > 2

def test_a_phrase_counts_within_the_filters(index):
    hits = found(index, '"sort the web"', glob='n0*')
    assert hits.notes == ['no passage contains "sort the web"'] and all('kept' not in hit.path for hit in hits)

def test_a_pasted_text_in_quotes_is_only_a_phrase(index):
    assert found(index, f'"{"sort web " * 20_000}"').notes[0].startswith('no passage contains "sort web')
    assert found(index, '"' * 10_001 + 'sort' + ' "a' * 10_000)

def test_context_and_more_like_this_know_no_phrases(folder, encoder, index):
    search = NotebookSearch(index=index, cache=False)
    assert search.context('"sort the web" city', rerank=False) == search.context('sort the web city', rerank=False) != ''
    hit = found(index, '"sort the web"')[0]
    assert len(index.similar(hit.path, hit.cell_id, 5)) == 5

# Names and rare words

def test_only_names_and_rare_words_are_unusual(encoder):
    usual = 'How do I sort a list of words? READ the CSV, 3.10 and 2013; e.g. __ or _ 4'
    assert unusual(usual, encoder) == []
    names = 'SettingWithCopyWarning read_csv conv2d np.einsum choropleth'
    assert unusual(names, encoder) == ['SettingWithCopyWarning', 'read_csv', 'conv2d', 'einsum', 'choropleth']
    assert len(unusual(' '.join(f'name_{i}' for i in range(50_000)), encoder)) == 20

@pytest.mark.parametrize('mode', ['hybrid', 'dense', 'bm25'])
def test_a_name_that_stands_nowhere_is_said(index, mode):
    assert found(index, 'sort with SettingWithCopyWarning', mode=mode).notes == ["no notebook contains 'SettingWithCopyWarning'"]
    assert found(index, 'sort with pd.read_csv or read_csvs', mode=mode).notes == []
    assert found(index, 'sort the tedious pizza', mode=mode).notes == []  # an everyday word may be said in others
    assert found(index, '"sort the SettingWithCopyWarning"', mode=mode).notes == ['no passage contains "sort the SettingWithCopyWarning"']

def test_notes_go_with_the_rows(index):
    assert all(row['notes'] == ["no notebook contains 'read_parquet'"] for row in found(index, 'read_parquet city').rows())
    assert 'notes' not in found(index, 'city').rows()[0]

# Another folder's questions

def test_only_the_built_in_models_say_that_nothing_is_close(folder, index, tmp_path):
    "A threshold that was fitted on other scores says nothing"
    assert NotebookSearch(index=index, cache=False)('the plot of Hamlet', rerank=False).notes == []
    low = Ranker(lambda pairs: [0.]*len(pairs))
    assert NotebookSearch(folder, ranker=low, index=tmp_path/'other.db')('the plot of Hamlet').notes == []

def test_nothing_close_is_said_and_a_threshold_works_as_before(folder, tmp_path):
    search = NotebookSearch(folder, index=tmp_path/'i.db', cache=False)
    search.index.update()
    for rerank in (True, False):
        assert search('symptoms of vitamin deficiency', 3, 3, rerank).notes == [far]
        assert search('sort the web by price', 3, 3, rerank).notes == []
    missed = search('symptoms of vitamin deficiency', 3, 3, threshold=.9)
    assert (len(missed), missed.notes, bool(missed.nearest)) == (0, [], True)
    assert search('symptoms of vitamin deficiency', 3, 3, group=True).notes == [far]

def test_the_command_line_says_it_on_stderr_and_the_exit_code_stays(folder, tmp_path):
    def run(*args):
        return subprocess.run([*program, *args, str(folder), '-k', '2'], env=environment(tmp_path), capture_output=True, text=True)
    done = run('symptoms of vitamin deficiency', '--wait', '--json')
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, 'nothing close; nearest:')
    assert [row['notes'] for row in json.loads(done.stdout)] == [[far]]*2
    named = run('sort with SettingWithCopyWarning', '--mode', 'bm25', '--no-rerank')
    assert (named.returncode, named.stderr) == (0, "no notebook contains 'SettingWithCopyWarning'; nearest by meaning:\n")
    assert 'notebook contains' not in named.stdout and named.stdout.count('.ipynb:') == 2
    quoted = run('"sort the web"', '--mode', 'bm25', '--no-rerank')
    assert (quoted.returncode, quoted.stderr, quoted.stdout.count('kept.ipynb:')) == (0, '', 2)
