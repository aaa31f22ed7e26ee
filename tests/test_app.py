"The page: a real server process, asked over HTTP and looked at in a real headless Chromium."
import http.client, inspect, json, re, sys, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlparse
import pytest
pytest.importorskip('fasthtml', reason="needs the extra of the page: pip install 'semsearch[app]'")
sys.path.insert(0, str(Path(__file__).parent.parent/'tools'))
import screens

attack = ('<script>window.hacked=1</script><img src=x onerror="window.hacked=2"><svg onload="window.hacked=3"><a href="javascript:window.hacked=4">a</a>'
          '<iframe srcdoc="<script>parent.hacked=5</script>"></iframe><style>body{display:none}</style>"\'><b onclick=window.hacked=6>')
pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

def notebook(path, *cells):
    "Write a notebook; a cell is its markdown, or a dict"
    cells = [dict(dict(cell_type='markdown', source=cell) if isinstance(cell, str) else cell, id=f'{path.stem}-{i}', metadata={})
             for i,cell in enumerate(cells)]
    for cell in cells: cell['cell_type'] == 'code' and cell.setdefault('outputs', [])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=cells, metadata=dict(language_info=dict(name='python')), nbformat=4, nbformat_minor=5)))
    return path

def code(source, *outputs): return dict(cell_type='code', source=source, execution_count=1, outputs=list(outputs))
def shown(**data): return dict(output_type='display_data', metadata={}, data={key.replace('_', '/'): value for key,value in data.items()})

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A few notebooks, good and bad, and some things outside of them"
    place = tmp_path_factory.mktemp('page')
    nbs = place/'nbs'
    notebook(nbs/'evil.ipynb', f'# Evil {attack}\nAn evil passage {attack}', f'## Evil heading {attack}\n[evil link](javascript:window.hacked=7) '
             f'![evil picture](http://example.org/spy.png) $\\text{{{attack}}}$ <javascript:window.hacked=8>\n\n```html\n{attack}\n```',
             code(f'evil = """{attack}"""', dict(output_type='stream', name='stdout', text=attack), shown(text_html=attack, text_plain=attack),
                  {'output_type': 'display_data', 'metadata': {}, 'data': {'image/svg+xml': '<svg xmlns="http://www.w3.org/2000/svg" onload="window.hacked=9"/>'}},
                  dict(output_type='error', ename=attack, evalue=attack, traceback=[attack])))
    notebook(nbs/'maths.ipynb', '# Maths\nThe area of a circle is $\\pi r^2$, and so is this:\n\n$$A = \\int_0^1 \\frac{x}{2} dx$$',
             code('def area(radius): return 3.14159*radius**2', shown(image_png=pixel)), '## Other\nA [link](https://example.org) and a table.\n\n|a|b|\n|-|-|\n|1|2|')
    topics = dict(cooking=['Boil potatoes in salted water.', 'Bake bread with yeast and flour.', 'Fry an egg in butter.'],
                  files=['Read a CSV file row by row.', 'Write a file atomically, through a temporary one.', 'Copy a folder and all that is in it.'],
                  travel=['Take the night train to Vienna.', 'Book a ferry across the lake.', 'Walk over the pass before noon.'],
                  music=['Tune a violin in fifths.', 'Count the beats of a waltz.', 'Breathe before a long phrase.'])
    for topic,texts in topics.items():
        for i,text in enumerate(texts):
            notebook(nbs/topic/f'{topic}{i}.ipynb', f'# {topic.title()} {i}\n{text}', *[f'## Step {n}\n{text} This is step {n} of {topic}, and it takes {n+2} minutes.'
                                                                                     for n in range(4)], code(f'# {text}\nresult = {topic}({i})'))
    notebook(place/'secret.ipynb', '# Secret\nThe password of the bank is swordfish.')
    (nbs/'link.ipynb').symlink_to(place/'secret.ipynb')
    (nbs/'broken.ipynb').write_text('{')
    return place

@pytest.fixture(scope='module')
def server(folder):
    "The URL of the real program, when it has indexed the folder"
    process,url = screens.start(folder/'nbs', '--index', folder/'index.db')
    address = urlparse(url)
    def ready(): return '16 notebooks' in (said := get(address.netloc, '/status').text) and 'busy' not in said and ' 0 passages' not in said
    try:
        screens.wait(ready)
        yield address.netloc
    finally: process.terminate(); process.wait(10)

class Answer:
    def __init__(self, answered): self.status,self.headers,self.text = answered.status,answered.headers,answered.read().decode()

def get(netloc, path, method='GET', **headers):
    "One request, with the path as it is"
    connection = http.client.HTTPConnection(netloc, timeout=600)
    try:
        connection.request(method, path, headers={key.replace('_', '-'): value for key,value in headers.items()})
        return Answer(connection.getresponse())
    finally: connection.close()

def keys(html): return re.findall(r'data-key="([^"]*)#', html)

# Who may ask, and for what

def test_only_its_own_names_are_answered(server):
    port = server.split(':')[1]
    for host in (f'127.0.0.1:{port}', f'localhost:{port}', f'[::1]:{port}'): assert get(server, '/', Host=host).status == 200
    for host in ('evil.example', f'evil.example:{port}', f'127.0.0.1.evil.example:{port}', f'localhost.evil.example:{port}', '0.0.0.0', ''):
        no = get(server, '/results?q=potatoes', Host=host)
        assert no.status == 403 and 'potatoes' not in no.text

def test_other_sites_are_not_answered(server):
    port = server.split(':')[1]
    assert get(server, '/status', Origin=f'http://{server}').status == 200
    for origin in ('https://evil.example', 'null', f'http://localhost:{int(port)+1}', f'http://127.0.0.1:{port}.evil.example'):
        assert get(server, '/results?q=potatoes', Origin=origin).status == 403
    for site in ('cross-site', 'same-site'):
        assert get(server, '/results?q=potatoes', Sec_Fetch_Site=site, Sec_Fetch_Mode='no-cors', Sec_Fetch_Dest='script').status == 403

@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
def test_nothing_can_be_changed(server, method): assert get(server, '/', method).status == 405

@pytest.mark.parametrize('path', ['/etc/passwd', '../secret.ipynb', 'nbs/../../secret.ipynb', '', '.', '\0', '~/.bashrc', 'file:///etc/passwd', '{nbs}/../secret.ipynb',
                                  '{nbs}/link.ipynb', '{place}/secret.ipynb', '{place}/index.db', '{nbs}/broken.ipynb', '{nbs}'])
def test_no_file_outside_is_read(server, folder, path):
    path = path.format(nbs=folder/'nbs', place=folder)
    page = ['/?' + urlencode(dict(path=path, cell='secret-0', q='x'))] if path else []
    for address in ('/cell?' + urlencode(dict(path=path, cell='secret-0')), '/results?' + urlencode(dict(like=f'{path}#secret-0')), *page):
        no = get(server, address)
        assert no.status in (400, 404) and 'No such notebook in the searched folders' in no.text
        assert 'root:' not in no.text and 'swordfish' not in no.text

@pytest.mark.parametrize('path', ['/../../../../etc/passwd', '/%2e%2e/%2e%2e/%2e%2e/etc/passwd', '/..%2f..%2fetc%2fpasswd', '/app.js/../../settings.ini', '/settings.ini',
                                  '/nbs/evil.ipynb', '//etc/passwd', '/cell/../../etc/passwd', '/.sesskey', '/%00'])
def test_no_address_is_a_file(server, path): assert get(server, path).status == 404

def test_a_link_that_leads_out_is_not_found(server):
    found = get(server, '/results?q=password+of+the+bank&k=50').text
    assert keys(found) and 'swordfish' not in found and not [key for key in keys(found) if 'link.ipynb' in key]

def test_every_answer_says_that_nothing_else_may_be_loaded(server):
    for path in ('/', '/app.js', '/app.css', '/icon.svg', '/results?q=eggs', '/results?q=', '/status', '/nothing', '/cell?path=x'):
        headers = get(server, path).headers
        policy = dict(part.split(' ', 1) for part in headers['content-security-policy'].split('; '))
        assert policy == {'default-src': "'none'", 'script-src': "'self'", 'style-src': "'self'", 'img-src': "'self' data:", 'connect-src': "'self'",
                          'form-action': "'self'", 'base-uri': "'none'", 'frame-ancestors': "'none'"}
        assert headers['x-content-type-options'] == 'nosniff' and headers['referrer-policy'] == 'no-referrer' and 'set-cookie' not in headers
        assert headers['cross-origin-resource-policy'] == 'same-origin'
    assert 'content-security-policy' in get(server, '/', Host='evil.example').headers

@pytest.fixture(scope='module')
def open_server(folder):
    "A server for other machines: where it listens, its token, and all that it said"
    process,url = screens.start(folder/'nbs', '--index', folder/'index.db', '--host', '0.0.0.0', '--allow-host', 'box.example')
    try:
        token = parse_qs(urlparse(url).query)['token'][0]
        yield urlparse(url).netloc,token,process.stderr.readline()
    finally: process.terminate(); process.wait(10)

paths = '/', '/?q=potatoes', '/results?q=potatoes', '/status', '/cell?path=x', '/app.js', '/app.css', '/icon.svg', '/nothing'

def test_other_machines_need_the_token(open_server):
    netloc,token,said = open_server
    port = netloc.split(':')[1]
    assert len(token) == 43 and 'other machines can read' in said and 'not encrypted' in said and token not in said
    wrong = '', f'token={token[:-1]}', f'token={token}x', f'token={token.swapcase()}', 'token=', f'token={token}&token=', f'Token={token}', 'token=%ff%00'
    for path in paths:
        for query in wrong:
            no = get(netloc, path + ('&' if '?' in path else '?')*bool(query) + query)
            assert no.status == 403 and 'semsearch serve printed' in no.text and len(no.text) < 300 and 'set-cookie' not in no.headers
    for cookie in ('', f'semsearch-{port}=', f'semsearch-{port}={token[:-1]}', f'semsearch-1={token}', f'{token}', f'semsearch-{port}=a; semsearch-{port}=b'):
        assert get(netloc, '/status', Cookie=cookie).status == 403
    for method in ('POST', 'PUT', 'OPTIONS'): assert get(netloc, f'/?token={token}', method).status == 405

def test_the_token_is_kept_in_a_cookie_that_no_script_and_no_other_site_has(open_server):
    netloc,token,_ = open_server
    port = netloc.split(':')[1]
    for host in (netloc, f'box.example:{port}'):
        first = get(netloc, f'/?q=potatoes&token={token}', Host=host)
        name,*flags = first.headers['set-cookie'].split('; ')
        assert first.status == 200 and name == f'semsearch-{port}={token}' and set(flags) == {'Path=/', 'HttpOnly', 'SameSite=Strict'}
        assert token not in first.text and first.headers['referrer-policy'] == 'no-referrer'
        for path,status in zip(paths, (200, 200, 200, 200, 404, 200, 200, 200, 404)):
            later = get(netloc, path, Host=host, Cookie=f'other=1; {name}')
            assert later.status == status and 'set-cookie' not in later.headers
    for strange in (dict(Host='evil.example'), dict(Origin='https://evil.example'), dict(Sec_Fetch_Site='cross-site')): # the token does not open what is closed
        assert get(netloc, '/status', Cookie=name, **strange).status == 403
    assert get(netloc, '/status', Host='localhost:99999', Cookie=name).status == 403

def test_another_start_has_another_token(open_server, folder):
    process,url = screens.start(folder/'nbs', '--index', folder/'index.db', '--host', '0.0.0.0')
    try:
        assert f'token={open_server[1]}' not in url
        assert get(urlparse(url).netloc, f'/?token={open_server[1]}').status == 403
    finally: process.terminate(); process.wait(10)

class Tags(HTMLParser):
    "The tags of a page with their attributes"
    def __init__(self, text): super().__init__(); self.found = []; self.feed(text)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))

def test_the_page_names_no_other_place(server):
    tags = Tags(get(server, '/?q=egg').text).found
    for tag,attrs in tags:
        for name in ('src', 'href', 'action'):
            if name in attrs: assert attrs[name].startswith('/') and not attrs[name].startswith('//')
    for file in ('/app.js', '/app.css'): assert not re.search(r'https?:|//[a-z]+\.|@import|url\(', get(server, file).text)

def evil_addresses(folder):
    path = folder/'nbs/evil.ipynb'
    return ['/?q=evil&explain=1', '/results?q=evil&closely=1&explain=1', '/?' + urlencode(dict(q=attack)), '/?' + urlencode(dict(like=attack)),
            *['/?' + urlencode(dict(q='evil', path=path, cell=f'evil-{i}')) for i in range(3)]]

def test_what_stands_in_a_notebook_makes_no_tags(server, folder):
    for address in evil_addresses(folder):
        text = get(server, address).text
        assert 'vil' in text or 'like=' in address
        for tag,attrs in Tags(text).found:
            assert tag not in ('svg', 'iframe', 'style', 'b', 'object', 'embed', 'base')
            assert tag != 'script' or attrs == dict(src='/app.js', defer=None)
            assert not [name for name in attrs if name.startswith('on') or name == 'style']
            for name in ('href', 'src'):
                assert re.match(r'/|https://|data:image/(png|jpeg|gif|webp);base64,', attrs.get(name) or '/')

def test_a_web_socket_is_closed_before_anything_is_asked(server):
    import asyncio
    shake = dict(Connection='Upgrade', Upgrade='websocket', Sec_WebSocket_Version='13', Sec_WebSocket_Key='dGhlIHNhbXBsZSBub25jZQ==')
    assert get(server, '/', **shake).status in (200, 403) # a server without a library for web sockets takes it for a plain request
    from semsearch.app import Guard
    asked,sent = [],[]
    async def inner(scope, receive, send): asked.append(scope)
    async def send(message): sent.append(message)
    for kind in ('websocket', 'something new'):
        scope = dict(type=kind, method='GET', path='/', headers=[(b'host', b'localhost')])
        asyncio.run(Guard(inner, {'localhost'})(scope, None, send))
    assert asked == [] and {message['type'] for message in sent} == {'websocket.close'}

# What is drawn

def test_only_elements_of_mathml_are_drawn():
    from xml.etree.ElementTree import Element, SubElement
    from fastcore.xml import to_xml
    from semsearch.page import safe_math
    tags = 'script', 'a', 'm', 'mSCRIPT', 'meta x', 'm><script', 'maction href', '{http://www.w3.org/2000/svg}svg', 'm'*30
    top = Element('math')
    for tag in ('mi', *tags): SubElement(top, tag).text = 'x'
    assert {tag for tag,_ in Tags(to_xml(safe_math(top))).found} == {'math', 'mi', 'mrow'}

@pytest.mark.parametrize('target', ['ftp://example.org/a', 'tel:+4912345', 'vscode://file/etc/passwd', 'ms-word:ofe|u|http://example.org', '//example.org', '/etc/passwd',
                                    'secret.ipynb', '../secret.ipynb', '#top', '?q=x', 'xhttps://example.org', 'blob:https://example.org/1', 'httpsx://a', 'http:example.org'])
def test_links_lead_to_the_web_or_to_a_mail_program(target):
    from semsearch.page import render_markdown
    drawn = render_markdown(f'[text](<{target}>) and [mail](mailto:a@example.org) and [web](HTTP://example.org)')
    assert [attrs['href'] for tag,attrs in Tags(drawn).found if tag == 'a'] == ['mailto:a@example.org', 'HTTP://example.org'] and 'text' in drawn

def test_what_is_drawn_of_a_cell_has_a_length():
    from fastcore.basics import AttrDict
    from fastcore.xml import to_xml
    from semsearch.page import most_chars, render_cell
    for kind in ('markdown', 'code', 'raw'):
        cell = AttrDict(source='z'*(5*most_chars), output='', cell_id='x', cell_type=kind)
        drawn = to_xml(render_cell(cell, 'text'))
        assert most_chars == 20_000 and drawn.count('z') == most_chars and '80000 characters more' in drawn

slowest = ['\n', ' \n', 'a\n', ' ', '\t', 'a', '0', '_', '"\\', '\\"', '&', '$', 'a::', 'a.', '-', "'", '(', '{', '"', '\\', '<!', '{%'] # of seventy kinds of repetition

def test_colours_take_bounded_time_in_every_language():
    "Without a bound, C# takes half a minute for one cell, Maple a minute, and Easytrieve hours"
    from pygments.lexers import get_all_lexers
    from semsearch.page import coloured, render_code
    known = [names for _,names,_,_ in get_all_lexers() if names]
    texts = [(mark*20_000)[:20_000] for mark in slowest]
    def seconds(language):
        start = time.thread_time()
        for text in texts: render_code(text, language)
        return time.thread_time()-start
    slow = {name: seconds(name) for name in ('csharp', 'maple', 'easytrieve', 'java', 'sas', 'autohotkey', 'xpp', 'gherkin', 'python', 'c')}
    assert max(slow.values()) < 15, slow
    assert coloured <= {name for names in known for name in names}
    drawn = {names[0] for names in known if '<span class="' in render_code('if x == "a": # 1\n  return 2\n', names[0])}
    assert 60 < len(drawn) < 100 and {'python', 'splus', 'julia', 'bash', 'sql', 'cpp', 'csharp', 'rust'} <= drawn

@pytest.mark.parametrize('language', ['python', 'r', 'julia', 'sql', 'c', 'html'])
def test_no_character_is_lost_among_the_colours(language):
    from html import unescape
    from semsearch.page import render_code
    for source in ('x = "<a>" # ü\n', 'no end', '\n\n  x\n\n', 'a = 1\n'*2000, 'y'*9000, '"""\n' + 'text\n'*1000 + '"""'):
        assert unescape(re.sub('<[^<>]*>', '', render_code(source, language))).rstrip('\n') == source.rstrip('\n')

def test_a_question_has_a_length():
    from semsearch.page import read_state
    state = read_state(dict.fromkeys(('q', 'path', 'cell', 'like'), 'x'*50_000))
    assert [len(state[name]) for name in ('q', 'path', 'cell', 'like')] == [2000]*4

# Searching

def test_more_like_this_shows_nothing_that_lies_outside(tmp_path, encoder):
    "A notebook that became a link after it was read: the index still holds its words"
    from semsearch.app import Desk
    from semsearch.ranker import Ranker
    texts = dict(a='Boil the potatoes in salted water.', b='An oven bakes potatoes with rosemary.', c='Peel the potatoes, then grate them finely.')
    for name,text in texts.items(): notebook(tmp_path/'nbs'/f'{name}.ipynb', f'# {name}\n{text}')
    desk = Desk(tmp_path/'nbs', encoder, Ranker(lambda pairs: [.5]*len(pairs)), tmp_path/'i.db')
    try:
        desk.keep_up().result(60); desk.every = 1e9
        path = str(tmp_path/'nbs/a.ipynb')
        names = lambda hits: sorted(Path(hit.path).name for hit in hits)
        for _ in range(300): # until the passages have vectors
            if desk.quick.submit(lambda notebooks: notebooks.index.encoded()).result(60) == 1: break
            time.sleep(.1)
        assert names(desk.similar(path, 'a-0').result(60)) == ['b.ipynb', 'c.ipynb']
        (tmp_path/'nbs/b.ipynb').rename(tmp_path/'b.ipynb'); (tmp_path/'nbs/b.ipynb').symlink_to(tmp_path/'b.ipynb')
        assert names(desk.similar(path, 'a-0').result(60)) == ['c.ipynb']
        assert names(desk.search('potatoes').result(60)) == ['a.ipynb', 'c.ipynb']
        with pytest.raises(KeyError): desk.locate(str(tmp_path/'nbs/b.ipynb')).result(60)
    finally:
        for worker in (desk.quick, desk.thorough, desk.keeper): worker.close()

def test_answers_over_http(server):
    first = get(server, '/results?q=how+do+I+boil+potatoes&k=3')
    assert first.status == 200 and len(keys(first.text)) == 3 and 'cooking0.ipynb' in keys(first.text)[0]
    assert re.fullmatch(r'3 passages in \d+ ms', unquote(first.headers['x-note'])) and 'rerank' not in first.text
    second = get(server, '/results?q=how+do+I+boil+potatoes&k=3&closely=1')
    assert 'read closely' in unquote(second.headers['x-note']) and 'rerank 0.' in second.text
    assert 'Nothing found' in get(server, '/results?q=xyzzyx&mode=bm25&language=cobol').text or not has_filters()
    assert get(server, '/results?q=').text == '' and get(server, '/results?q=x&before=many').status == 400

def test_a_quoted_phrase_must_be_there_and_what_is_not_is_said_above_the_list(server):
    for closely in ('', '&closely=1'):
        quoted = get(server, '/results?q=%22Boil+potatoes%22+and+bread&k=50'+closely).text
        assert keys(quoted) and all('cooking0.ipynb' in key for key in keys(quoted)) and 'notice' not in quoted
        above,*cards = get(server, '/results?q=a+LabelEncoder+for+potatoes&k=3'+closely).text.split('<li ')
        assert 'no notebook contains' in above and 'LabelEncoder' in above and len(cards) == 3

def has_filters():
    from semsearch.search import NotebookSearch
    return 'filters' in inspect.signature(NotebookSearch.__call__).parameters

needs_filters = pytest.mark.skipif(not has_filters(), reason='NotebookSearch takes no filters yet')

@needs_filters
def test_filters_over_http(server):
    assert all('/music/' in key for key in keys(get(server, '/results?q=step&glob=music/').text))
    assert get(server, '/results?q=step&since=never').status == 400
    assert all('evil.ipynb' in key for key in keys(get(server, '/results?q=step&error=1').text))
    assert 'Nothing found' in get(server, '/results?q=step&language=julia').text

def test_twenty_readers_lose_nothing_and_do_not_wait_for_each_other(server):
    def ask(path):
        start = time.perf_counter(); answered = get(server, path)
        return answered.status,len(keys(answered.text)),time.perf_counter(),time.perf_counter()-start
    words = ['bread', 'violin', 'train', 'file', 'egg', 'ferry', 'waltz', 'folder', 'pass', 'phrase']
    with ThreadPoolExecutor(40) as pool:
        close = [pool.submit(ask, f'/results?q=reader+{n}+wants+{words[n%10]}&closely=1') for n in range(20)]
        first = [pool.submit(ask, f'/results?q=reader+{n}+wants+{words[n%10]}') for n in range(20)]
        close,first = [[future.result() for future in some] for some in (close, first)]
    assert {answer[:2] for answer in close+first} == {(200, 10)}
    assert max(done for *_,done,_ in first) < max(done for *_,done,_ in close)
    assert sorted(taken for *_,taken in first)[10] < sorted(taken for *_,taken in close)[10]

def test_a_new_notebook_is_found_without_a_restart(server, folder):
    new = notebook(folder/'nbs/new/zeppelin.ipynb', '# Zeppelins\nAn airship is lighter than air.')
    try: screens.wait(lambda: 'zeppelin' in get(server, '/results?q=airship').text)
    finally: new.unlink()
    screens.wait(lambda: 'zeppelin' not in get(server, '/results?q=airship').text)

# In a browser

@pytest.fixture(scope='module')
def wide():
    chrome = screens.browser(1280, 900)
    if chrome is None: pytest.skip('needs selenium, chromium and chromedriver')
    yield Screen(chrome)
    chrome.quit()

class Screen:
    "A browser window with short names for what a reader does"
    def __init__(self, chrome): self.chrome = chrome
    def open(self, server, path='/'):
        self.server = server
        self.chrome.get(f'http://{server}{path}')
    def find(self, css): return self.chrome.find_elements('css selector', css)
    def js(self, script): return self.chrome.execute_script(f'return {script}')
    def keys(self, *keys):
        "Type at whatever has the focus, which may be drawn anew meanwhile"
        from selenium.webdriver import ActionChains
        ActionChains(self.chrome).send_keys(*keys).perform()
    def type(self, text):
        box = self.find('#q')[0]; box.clear(); box.send_keys(text)
    def titles(self): return self.js("[...document.querySelectorAll('a.hit')].map(hit => hit.textContent)")
    def note(self): return self.js("document.querySelector('#note').textContent")
    def settled(self): screens.wait(lambda: 'read closely' in self.note() and not self.find('#results[aria-busy]'))
    def state(self): return {name: value[0] for name,value in parse_qs(urlparse(self.chrome.current_url).query).items()}
    @contextmanager
    def held_back(self, what='closely'):
        "Open pages whose requests with some word wait until this is over, so that there is time to act before they are answered"
        hold = f"""const ask = fetch, open = new Promise(done => addEventListener('release', done));
                   window.fetch = async (...args) => {{ if (args[0].includes('{what}')) await open; return ask(...args); }};"""
        hook = self.chrome.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument', dict(source=hold))
        try: yield
        finally:
            self.chrome.execute_script("dispatchEvent(new Event('release'))")
            self.chrome.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', hook)
    def held(self): return self.js("document.activeElement.closest('li')?.dataset.key ?? document.activeElement.id")

def test_results_come_while_typing_and_a_click_opens_the_cell(wide, server):
    wide.open(server)
    assert wide.held() == 'q' and not wide.titles()
    wide.type('tune a viol')
    screens.wait(wide.titles)
    assert wide.titles()[0].startswith('Music 0') and wide.js("document.querySelector('#results mark').textContent").lower() in ('tune', 'violin')
    wide.settled()
    assert wide.state() == dict(q='tune a viol') and len(wide.titles()) == 10
    wide.find('a.hit')[0].click()
    screens.wait(lambda: wide.find('#cell .wanted'))
    assert wide.find('#cell h2')[0].text == 'Music 0' and 'Tune a violin' in wide.find('#cell .wanted')[0].text
    assert wide.state()['cell'].startswith('music0-') and wide.js("CSS.highlights.get('words').size") > 0
    address = wide.chrome.current_url
    wide.chrome.get(address)
    screens.wait(lambda: wide.find('#cell .wanted') and wide.titles())
    assert wide.chrome.current_url == address and wide.find('#q')[0].get_attribute('value') == 'tune a viol'
    wide.find('#close')[0].click()
    screens.wait(lambda: not wide.find('#cell article'))
    wide.chrome.back()
    screens.wait(lambda: wide.find('#cell .wanted'))

def test_a_cell_that_comes_late_does_not_take_the_place_of_a_newer_one(wide, server):
    with wide.held_back('/cell'):
        wide.open(server, '/?q=tune+a+violin')
        screens.wait(wide.titles); wide.settled()
        first,second = (hit.get_attribute('href') for hit in wide.find('a.hit')[:2])
        wide.find('a.hit')[0].click(); wide.find('a.hit')[1].click()
    screens.wait(lambda: wide.find('#cell .wanted'))
    time.sleep(.5) # for an answer that is not wanted any more
    wanted = parse_qs(urlparse(second).query)['cell'][0]
    assert wide.state()['cell'] == wanted != parse_qs(urlparse(first).query)['cell'][0]
    assert wide.find('#cell .wanted')[0].get_attribute('id') == f'cell-{wanted}'

def test_in_a_browser_the_token_leaves_the_address_and_the_page_works(wide, open_server):
    netloc,token,_ = open_server
    wide.chrome.delete_all_cookies()
    wide.open(netloc, '/?q=tune+a+violin'); assert 'semsearch serve printed' in wide.js('document.body.textContent')
    wide.open(netloc, f'/?q=tune+a+violin&token={token}')
    screens.wait(wide.titles); wide.settled()
    assert wide.state() == dict(q='tune a violin') and wide.js('document.cookie') == ''
    wide.find('a.hit')[0].click()
    screens.wait(lambda: wide.find('#cell .wanted'))
    wide.chrome.refresh(); screens.wait(wide.titles)

def test_code_formulas_tables_and_pictures_are_drawn(wide, server, folder):
    wide.open(server, '/?' + urlencode(dict(path=folder/'nbs/maths.ipynb', cell='maths-0')))
    formula = wide.find('#cell math[display=block]')[0].rect
    assert formula['height'] > 20 and wide.find('#cell mfrac')
    assert wide.js("getComputedStyle(document.querySelector('.code .k')).color") != wide.js("getComputedStyle(document.querySelector('.code pre')).color")
    assert wide.find('#cell td')[0].text == '1' and wide.js("document.querySelector('.cell img').naturalWidth") == 1
    assert wide.find('#cell a[target=_blank]')[0].get_attribute('rel') == 'noopener noreferrer'

def test_the_keyboard_is_enough(wide, server):
    from selenium.webdriver import Keys
    wide.open(server)
    wide.keys('boil potatoes')
    screens.wait(wide.titles); wide.settled()
    wide.keys(Keys.ARROW_DOWN)
    first = wide.held()
    assert 'cooking0' in first
    wide.keys(Keys.ARROW_DOWN); assert wide.held() != first
    wide.keys('k'); assert wide.held() == first
    wide.keys(Keys.ENTER)
    screens.wait(lambda: wide.find('#cell .wanted'))
    wide.keys(Keys.ESCAPE)
    screens.wait(lambda: not wide.find('#cell article'))
    assert wide.held() == first
    wide.keys('m')
    screens.wait(lambda: 'passages like' in wide.note())
    assert wide.state()['like'].split('#')[1].startswith('cooking0-') and first not in [row.get_attribute('data-key') for row in wide.find('#results li')]
    wide.keys('/'); assert wide.held() == 'q'
    wide.keys('bread'); wide.settled()
    assert 'like' not in wide.state()
    wide.keys(Keys.ARROW_DOWN); wide.keys('e')
    screens.wait(lambda: wide.find('mark.near4') or not wide.find('#ready')[0].get_attribute('hidden'))
    wide.keys('r')
    screens.wait(lambda: wide.find('mark.near4'))
    wide.keys(Keys.ESCAPE); assert wide.held() == 'q'

@needs_filters
def test_filters_narrow_the_list(wide, server):
    wide.open(server, '/?q=step')
    wide.settled()
    wide.find('#ask summary')[0].click()
    wide.find('input[name=glob]')[0].send_keys('travel/')
    screens.wait(lambda: wide.titles() and all(title.startswith('Travel') for title in wide.titles()))
    assert wide.state() == dict(q='step', glob='travel/')
    wide.chrome.refresh()
    screens.wait(wide.titles)
    assert wide.find('#ask details[open]') and all(title.startswith('Travel') for title in wide.titles())

def orders(server):
    "A query whose second stage puts the results in another order"
    for query in ('long breath', 'minutes of music', 'a way over the mountains', 'safe writing', 'dinner', 'a row of beats', 'water'):
        first,second = (keys(get(server, f'/results?q={quote(query)}{stage}').text) for stage in ('', '&closely=1'))
        if first != second: return query

def test_the_order_does_not_change_under_the_hand(wide, server):
    from selenium.webdriver import Keys
    query = orders(server)
    assert query
    rows = lambda: [row.get_attribute('data-key') for row in wide.find('#results li')]
    with wide.held_back():
        wide.open(server, f'/?q={quote(query)}')
        screens.wait(lambda: wide.find('#results[aria-busy]')); wide.keys(Keys.ARROW_DOWN)
        before,held = rows(),wide.held()
    screens.wait(lambda: wide.find('#ready')[0].is_displayed())
    assert (rows(), wide.held()) == (before, held) and wide.find('#ready')[0].text == 'Show the new order'
    wide.keys('r')
    screens.wait(lambda: 'read closely' in wide.note())
    assert rows() != before and not wide.find('#ready')[0].is_displayed()

def test_a_pointer_on_the_list_is_a_hand_and_a_resting_one_is_not(wide, server):
    from selenium.webdriver import ActionChains
    query = orders(server)
    wide.open(server); wide.type('egg'); screens.wait(wide.titles)
    wide.settled(); ActionChains(wide.chrome).move_to_element(wide.find('a.hit')[2]).perform()
    wide.type(query); screens.wait(lambda: wide.state().get('q') == query); wide.settled()
    assert not wide.find('#ready')[0].is_displayed()
    with wide.held_back():
        wide.open(server, f'/?q={quote(query)}')
        screens.wait(lambda: wide.find('#results[aria-busy]'))
        ActionChains(wide.chrome).move_to_element(wide.find('a.hit')[0]).move_to_element(wide.find('a.hit')[1]).perform()
    screens.wait(lambda: wide.find('#ready')[0].is_displayed())

def test_without_a_hand_the_new_order_comes_by_itself(wide, server):
    query = orders(server)
    wide.open(server); wide.type(query); wide.settled()
    assert [row.get_attribute('data-key').rpartition('#')[0] for row in wide.find('#results li')] == keys(get(server, f'/results?q={quote(query)}&closely=1').text)
    assert wide.held() == 'q'

def test_nothing_in_a_notebook_runs_and_nothing_else_is_loaded(wide, server, folder):
    wide.chrome.get_log('performance'); wide.chrome.get_log('browser')
    for address in evil_addresses(folder):
        if address.startswith('/results'): continue
        wide.open(server, address)
        if 'path=' in address: assert wide.find('#cell .wanted')
        for link in wide.find('#cell a[href^="javascript"], #results a[href^="javascript"]'): raise AssertionError(link.get_attribute('outerHTML'))
        time.sleep(.3)
        assert wide.js('window.hacked') is None and wide.js("getComputedStyle(document.body).display") == 'grid'
    wide.open(server); wide.type(attack[:60]); screens.wait(wide.titles); wide.find('a.hit')[0].click()
    screens.wait(lambda: wide.find('#cell article'))
    assert wide.js('window.hacked') is None
    asked = [json.loads(line['message'])['message'] for line in wide.chrome.get_log('performance')]
    urls = {event['params']['request']['url'] for event in asked if event['method'] == 'Network.requestWillBeSent'}
    assert urls and all(url.startswith((f'http://{server}/', 'data:image/')) for url in urls)
    assert [line['message'] for line in wide.chrome.get_log('browser') if 'Content Security' in line['message'] or 'Uncaught' in line['message']] == []

def test_it_works_on_a_phone(server):
    chrome = screens.browser(400, 800)
    if chrome is None: pytest.skip('needs selenium, chromium and chromedriver')
    try:
        phone = Screen(chrome)
        phone.open(server, '/?q=evil+potatoes'); phone.settled()
        assert phone.js('document.documentElement.scrollWidth') <= 400 and phone.js("document.querySelector('#results').scrollWidth") <= 400
        phone.find('a.hit')[0].click()
        screens.wait(lambda: phone.find('#cell .wanted'))
        assert phone.js('document.documentElement.scrollWidth') <= 400 and not phone.find('#results')[0].is_displayed()
        assert phone.find('#close')[0].is_displayed() and phone.find('#cell')[0].rect['width'] == 400
        phone.find('#close')[0].click()
        screens.wait(lambda: phone.find('#results')[0].is_displayed())
    finally: chrome.quit()
