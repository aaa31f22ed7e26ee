"The tools for agents: a real client of the SDK talks to the real program over stdio."
import asyncio, json, os, shutil, sys
from pathlib import Path
import pytest
pytest.importorskip('mcp', reason="needs the MCP SDK: pip install 'semsearch[mcp]'")
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

def notebook(path, *sources):
    "Write a notebook of markdown and code cells; code begins with >"
    cells = [dict(id=f'c{i}', cell_type='markdown', metadata={}, source=source) if source[0] != '>' else
             dict(id=f'c{i}', cell_type='code', metadata={}, source=source[1:], execution_count=None, outputs=[
                 dict(output_type='stream', name='stdout', text='printed\n')]) for i,source in enumerate(sources)]
    path.write_text(json.dumps(dict(cells=cells, metadata=dict(language_info=dict(name='python')), nbformat=4, nbformat_minor=5)))
    return path

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp('agents')
    (place/'nbs').mkdir()
    notebook(place/'nbs/cooking.ipynb', '# Cooking\nBoil the potatoes in salted water until they are soft.', '>def boil(potatoes): return soft(potatoes)')
    notebook(place/'nbs/files.ipynb', '# Files\nA CSV file is read row by row.', '>import csv\nrows = csv.reader(open("a.csv"))',
             '## Writing\nWrite rows back to a file with a writer.')
    notebook(place/'nbs/long.ipynb', '# Long\n' + ' '.join(f'Sentence {i} about mountains and rivers.' for i in range(800)))
    (place/'nbs/broken.ipynb').write_text('{')
    notebook(place/'secret.ipynb', '# Secret\nThe password of the bank is swordfish.')
    (place/'nbs/link.ipynb').symlink_to(place/'secret.ipynb')
    return place

def talk(folder, ask, *args):
    "What `ask` gets out of a session with a fresh server"
    async def session():
        program = ['-c', 'from semsearch.cli import main; main()', 'mcp', str(folder/'nbs'), '--index', str(folder/'index.db'), *args]
        server = StdioServerParameters(command=sys.executable, args=program, env=dict(os.environ, HF_HUB_OFFLINE='1'))
        with open(folder/'stderr.txt', 'w') as errors:
            async with stdio_client(server, errlog=errors) as streams, ClientSession(*streams) as client:
                await client.initialize()
                return await ask(client)
    return asyncio.run(session())

def text(result): return '\n'.join(part.text for part in result.content)

@pytest.fixture(scope='module')
def answers(folder):
    "One session that calls everything, good and bad"
    long = str(folder/'nbs/long.ipynb')
    calls = dict(
        status=('status', {}),
        found=('search', dict(query='how do I read a table from a text file', top_k=2)),
        budget=('search', dict(query='mountains and rivers', top_k=50, max_tokens=400)),
        secret=('search', dict(query='password of the bank swordfish', top_k=50)),
        quoted=('search', dict(query='what is "row by row"', top_k=9)), absent=('search', dict(query='LabelEncoder')),
        endless=('search', dict(query='potatoes ' + 'and many other things '*20_000, top_k=1)),
        blank=('search', dict(query='  ')), none=('search', dict(query='x', top_k=0)), wrong=('search', dict(query=['x'])),
        cell=('read_cell', dict(path=str(folder/'nbs/files.ipynb'), cell_id='c1', before=1)),
        capped=('read_cell', dict(path=long, cell_id='c0', max_tokens=100)),
        gone=('read_cell', dict(path=long, cell_id='c9')),
        like=('similar', dict(path=str(folder/'nbs/files.ipynb'), cell_id='c2', top_k=1)),
        outside=('read_cell', dict(path='/etc/passwd', cell_id='c0')),
        dots=('read_cell', dict(path=str(folder/'nbs/../secret.ipynb'), cell_id='c0')),
        link=('read_cell', dict(path=str(folder/'nbs/link.ipynb'), cell_id='c0')),
        away=('similar', dict(path=str(folder/'secret.ipynb'), cell_id='c0')),
        unknown=('delete', {}))
    async def ask(client):
        async def until(true, *call):
            "Ask again until the index is there, however busy the machine is"
            for _ in range(600):
                answer = await client.call_tool(*call)
                if true(text(answer)): break
                await asyncio.sleep(.5)
            return answer
        tools = await client.list_tools()
        await until(lambda said: '5 notebooks' in said and 'still being indexed' not in said, 'status', {})
        found = {name: await client.call_tool(*call) for name,call in calls.items()}
        found['before'] = await client.call_tool('search', dict(query='tuning a violin', top_k=1))
        notebook(folder/'nbs/music.ipynb', '# Music\nTune the strings of a violin in fifths.')
        found['after'] = await until(lambda said: 'music.ipynb' in said, 'search', dict(query='tuning a violin', top_k=1))
        return tools.tools,found
    return talk(folder, ask)

def test_every_tool_is_listed_and_described(answers):
    tools,_ = answers
    assert [tool.name for tool in tools] == ['search', 'read_cell', 'similar', 'status']
    for tool in tools:
        assert tool.description and tool.annotations.read_only_hint
        assert all(argument.get('description') for argument in tool.input_schema['properties'].values())

def test_every_tool_answers(answers):
    _,found = answers
    assert '5 notebooks' in text(found['status']) and 'broken.ipynb: not JSON' in text(found['status'])
    first = text(found['found'])
    assert 'files.ipynb#c' in first.splitlines()[0] and first.startswith('[1] ') and '[2] ' in first
    assert text(found['cell']).index('# Files') < text(found['cell']).index('```python\nimport csv') < text(found['cell']).index('printed')
    assert text(found['like']).startswith('[1] ') and 'files.ipynb#c0' in text(found['like'])

def test_a_quoted_phrase_must_be_there_and_a_name_that_is_not_is_said(answers):
    _,found = answers
    assert 'files.ipynb#c0' in text(found['quoted']) and text(found['quoted']).count('(score') == 1
    assert text(found['absent']).startswith("no notebook contains 'LabelEncoder'")

def test_answers_keep_to_their_budget(answers):
    from semsearch.passages import tokenize
    _,found = answers
    for name,most in dict(budget=400, capped=100).items():
        assert len(tokenize([text(found[name])])[0]) <= most
    assert 'left out: max_tokens' in text(found['budget']) and '[cut: ' in text(found['capped'])

@pytest.mark.parametrize('name', ['outside', 'dots', 'link', 'away'])
def test_a_path_outside_gives_an_error_and_nothing_else(answers, name):
    _,found = answers
    assert found[name].is_error
    assert text(found[name]).split(': ')[-1] == 'No such notebook in the searched folders'

def test_a_link_that_leads_out_is_not_searched(answers):
    _,found = answers
    assert not found['secret'].is_error and 'swordfish' not in text(found['secret'])

@pytest.mark.parametrize('name, words', dict(blank='The query is empty', none='top_k must be at least 1', wrong='string', gone='There is no cell c9',
                                            unknown='delete').items())
def test_what_makes_no_sense_is_an_error_in_a_sentence(answers, name, words):
    _,found = answers
    assert found[name].is_error and words in text(found[name]) and 'Traceback' not in text(found[name])

def test_a_new_notebook_is_found_without_a_restart(answers):
    _,found = answers
    assert 'music.ipynb' not in text(found['before']) and 'music.ipynb#c0' in text(found['after'])

def test_a_folder_that_is_not_there_is_said_at_once(tmp_path):
    import subprocess
    done = subprocess.run([sys.executable, '-c', 'from semsearch.cli import main; main()', 'mcp', str(tmp_path/'no')], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and done.stdout == '' and done.stderr.count('\n') == 1 and 'No such file or folder' in done.stderr

def test_an_endless_question_is_cut_as_on_the_page(answers):
    from types import SimpleNamespace
    from semsearch.core import Hits
    from semsearch.mcp import Tools
    assert 'potatoes' in text(answers[1]['endless'])
    asked = []
    def search(query, top_k, closely, **filters): asked.append((query, filters)); return Hits()
    some = SimpleNamespace
    tools = Tools(some(search=search, quick=some(notebooks=some(index=some(encoder=None)))))
    tools.fresh,tools.ask = lambda: '',lambda found: found
    tools.search('x'*50_000, glob='y'*50_000)
    assert asked == [('x'*2000, dict(glob='y'*2000))]
