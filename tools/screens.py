"""Screenshots of the terminal, of Jupyter and of the page, from the real things, in light and dark, wide and narrow.

python tools/screens.py [FOLDER OF NOTEBOOKS] [WHERE TO PUT THEM]

It starts the real programs, over the same folder: `semsearch` on a terminal of 80 columns, JupyterLab if it is
installed, `semsearch serve`, and a headless Chromium that looks at them. The pictures go to tests/screens, and those
that the docs show to nbs/images.
"""
import json, os, re, shutil, subprocess, sys, tempfile, time
from html import escape
from pathlib import Path
from urllib.request import urlopen

root = Path(__file__).resolve().parent.parent
program = [sys.executable, '-c', 'import sys; sys.argv[0] = "semsearch"; from semsearch.cli import main; main()']
question = 'how does reranking work'

# A browser, and a little patience

def browser(width=1280, height=900, dark=False):
    "A headless Chromium whose page is `width` pixels wide; None where none is installed"
    try: from selenium import webdriver
    except ImportError: return None
    chromium,driver = shutil.which('chromium') or shutil.which('google-chrome'),shutil.which('chromedriver')
    if not (chromium and driver): return None
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
                 '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run',
                 '--hide-scrollbars', '--lang=en-US', f'--user-data-dir={tempfile.mkdtemp()}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    size = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
    found.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    scheme = dict(features=[dict(name='prefers-color-scheme', value='dark' if dark else 'light')])
    found.execute_cdp_cmd('Emulation.setEmulatedMedia', scheme)
    return found

def wait(true, seconds=300):
    "Until something is true, however busy the machine is"
    end = time.time()+seconds
    while not true():
        if time.time() > end: raise TimeoutError('it did not happen')
        time.sleep(.05)

# The terminal

def on_terminal(*args, columns=80, **kwargs):
    "What the real program writes to a terminal, and its exit code"
    import pty
    ours,theirs = pty.openpty()
    env = dict(kwargs.pop('env', os.environ), TERM='xterm', COLUMNS=str(columns))
    process = subprocess.Popen([*program, *args], stdout=theirs, stderr=subprocess.DEVNULL, env=env, **kwargs)
    os.close(theirs)
    said = b''
    while True:
        try: piece = os.read(ours, 4096)
        except OSError: break # the other end is closed
        if not piece: break
        said += piece
    os.close(ours)
    return said.decode().replace('\r\n', '\n'),process.wait()

looks = {'1': 'font-weight:bold', '4': 'text-decoration:underline',
         '33': 'color:var(--yellow)', '36': 'color:var(--cyan)'}

def drawn(text):
    "Escape sequences for colours and links as HTML"
    pieces,style = [],[]
    for part in re.split(r'(\x1b\[[\d;]*m|\x1b\]8;;.*?\x1b\\)', text):
        if part.startswith('\x1b]8'): pieces.append('<u>' if part != '\x1b]8;;\x1b\\' else '</u>')
        elif part.startswith('\x1b['): style = [] if part in ('\x1b[0m', '\x1b[m') else style + [looks[part[2:-1]]]
        elif part: pieces.append(f'<span style="{";".join(style)}">{escape(part)}</span>')
    return ''.join(pieces)

def shoot_terminal(place, folder):
    "Photograph three commands"
    commands = [question, 'nbs', '-k', '3'],[question, 'nbs', '-k', '1', '--explain'],['score cache', 'nbs', '-l']
    def typed(args): return 'semsearch ' + ' '.join(f'"{arg}"' if ' ' in arg else arg for arg in args)
    def said(args): return drawn(on_terminal(*args, cwd=place)[0])
    shown = '\n'.join(f'<b>$</b> {escape(typed(args))}\n{said(args)}' for args in commands)
    for scheme,colours in dict(light='#fff;color:#1c2026;--yellow:#8a5a00;--cyan:#00717f',
                               dark='#16181d;color:#dfe3ea;--yellow:#f0c050;--cyan:#50d0e0').items():
        page,chrome = place/'terminal.html',browser(780, 500)
        page.write_text(f'<meta charset=utf-8><body style="background:{colours};margin:16px"><pre style="font:15px/1.4 '
                        f'monospace;margin:0;width:82ch;white-space:pre-wrap">{shown}', encoding='utf-8')
        try: chrome.get(page.as_uri()); chrome.save_screenshot(str(folder/f'terminal-{scheme}.png'))
        finally: chrome.quit()

# Jupyter

def shoot_jupyter(place, folder):
    "Photograph the magic in JupyterLab"
    lab = shutil.which('jupyter-lab', path=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]))
    if not lab: print('JupyterLab is not installed: no pictures of it', file=sys.stderr); return
    lines = '%load_ext semsearch',f'%semsearch {question} -p nbs -k 2 --explain'
    cells = [dict(id=f'c{i}', cell_type='code', metadata={}, source=line, outputs=[], execution_count=None)
             for i,line in enumerate(lines)]
    kernel = dict(kernelspec=dict(name='python3', display_name='Python 3 (ipykernel)', language='python'))
    (place/'plan.ipynb').write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))
    process = subprocess.Popen([lab, '--no-browser', '--allow-root', '--port=8899', '--IdentityProvider.token=',
                                '--expose-app-in-browser', f'--ServerApp.root_dir={place}'], stderr=subprocess.DEVNULL)
    try:
        for width,scheme in ((1100, 'light'), (1100, 'dark'), (480, 'light')): shoot_lab(folder, width, scheme)
    finally: process.terminate(); process.wait(20)

def shoot_lab(folder, width, scheme):
    "Run the notebook in a browser of some width"
    chrome = browser(width, 820)
    def there(css): return chrome.find_elements('css selector', css)
    def command(name, args=''): chrome.execute_script(f"jupyterapp.commands.execute('{name}'{args})")
    def loaded():
        try: chrome.get('http://localhost:8899/doc/tree/plan.ipynb?reset'); return there('body')
        except Exception: return False # the server is not there yet
    try:
        wait(loaded)
        wait(lambda: there('.jp-Notebook .jp-Cell') and chrome.execute_script('return !!window.jupyterapp'))
        command('apputils:change-theme', f", {{theme: 'JupyterLab {scheme.title()}'}}")
        wait(lambda: there(f'body[data-jp-theme-light={"true" if scheme == "light" else "false"}]'))
        idle = "return jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        wait(lambda: chrome.execute_script(idle))
        command('notebook:run-all-cells')
        wait(lambda: there('.jp-OutputArea .semsearch'))
        chrome.execute_script("document.querySelector('.semsearch details').open = true; "
                              "document.querySelectorAll('.Toastify').forEach(news => news.remove())")
        time.sleep(1); chrome.save_screenshot(str(folder/f'jupyter-{width}-{scheme}.png'))
    finally: chrome.quit()

# The page

def start(*args, **kwargs):
    "Start the real server on a free port; the process, and the URL that it prints"
    serve = [*program, 'serve', '--port', '0', *map(str, args)]
    process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, **kwargs)
    for line in process.stderr:
        if 'http://' in line: return process,line[line.index('http://'):].split()[0]
    raise RuntimeError('the server did not start')

def shoot_page(place, folder):
    "Photograph results, an explanation, and a cell"
    process,url = start('nbs', cwd=place)
    def indexed(): return b'busy' not in (said := urlopen(f'{url}status').read()) and b' 0 passages' not in said
    query = f"{url}?q={question.replace(' ', '+')}"
    try:
        wait(indexed, 1200)
        for width in (1280, 400):
            for scheme in ('light', 'dark'): shoot_views(query, folder, width, scheme)
    finally: process.terminate(); process.wait(10)

def shoot_views(query, folder, width, scheme):
    "Photograph the page in a browser of some width"
    chrome = browser(width, 800, scheme == 'dark')
    def there(css): return chrome.find_elements('css selector', css)
    def shoot(name): time.sleep(.5); chrome.save_screenshot(str(folder/f'app-{name}-{width}-{scheme}.png'))
    try:
        for name,address in dict(explain=f'{query}&explain=1', results=query).items():
            chrome.get(address)
            wait(lambda: 'closely' in there('#note')[0].text)
            shoot(name)
        there('a.hit')[0].click()
        wait(lambda: there('.wanted'))
        shoot('cell')
    finally: chrome.quit()

# All of it

def main(notebooks=root/'nbs', folder=root/'tests/screens'):
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp())
    shutil.copytree(notebooks, place/'nbs', ignore=shutil.ignore_patterns('.*', '_*', 'images'))
    try:
        for shoot in (shoot_terminal, shoot_jupyter, shoot_page): shoot(place, folder)
    finally: shutil.rmtree(place)
    for name in ('terminal-light', 'jupyter-1100-light', 'app-cell-1280-light'):
        shutil.copy(folder/f'{name}.png', root/'nbs/images'/f"{name.split('-1')[0].removesuffix('-light')}.png")

if __name__ == '__main__': main(*map(Path, sys.argv[1:3]))
