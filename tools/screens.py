"""Screenshots of the page, from the real thing: starts `semsearch serve` and a headless Chromium.

python tools/screens.py [FOLDER OF NOTEBOOKS] [WHERE TO PUT THEM]

They go to tests/screens, and the one that the docs show to nbs/images.
"""
import shutil, subprocess, sys, tempfile, time
from pathlib import Path
from urllib.request import urlopen

root = Path(__file__).resolve().parent.parent

def browser(width=1280, height=900, dark=False):
    "A headless Chromium whose page is `width` pixels wide; None where none is installed"
    try: from selenium import webdriver
    except ImportError: return None
    program,driver = shutil.which('chromium') or shutil.which('google-chrome'),shutil.which('chromedriver')
    if not (program and driver): return None
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking',
                 '--disable-component-update', '--disable-sync', '--no-first-run', '--hide-scrollbars', '--lang=en-US',
                 f'--user-data-dir={tempfile.mkdtemp()}'): options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=False))
    scheme = dict(features=[dict(name='prefers-color-scheme', value='dark' if dark else 'light')])
    found.execute_cdp_cmd('Emulation.setEmulatedMedia', scheme)
    return found

def start(*args, **kwargs):
    "Start the real server on a free port; the process, and the URL that it prints"
    program = [sys.executable, '-c', 'from semsearch.cli import main; main()', 'serve', '--port', '0', *map(str, args)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, **kwargs)
    for line in process.stderr:
        if 'http://' in line: return process,line[line.index('http://'):].split()[0]
    raise RuntimeError('the server did not start')

def views(url, query):
    "The addresses of the views that are photographed"
    return dict(results=f'{url}?q={query}', explain=f'{url}?q={query}&explain=1')

def shoot(url, folder, query='how+does+reranking+work'):
    "Photograph the page, light and dark, wide and narrow"
    from selenium.webdriver.common.by import By
    for width,height in ((1280, 800), (400, 800)):
        for dark in (False, True):
            chrome = browser(width, height, dark)
            name = f"{width}-{'dark' if dark else 'light'}.png"
            try:
                for view,address in views(url, query).items():
                    chrome.get(address)
                    wait(lambda: 'closely' in chrome.find_element(By.ID, 'note').text)
                    time.sleep(.5); chrome.save_screenshot(str(folder/f'app-{view}-{name}'))
                chrome.get(f'{url}?q={query}')
                wait(lambda: 'closely' in chrome.find_element(By.ID, 'note').text)
                chrome.find_element(By.CSS_SELECTOR, 'a.hit').click()
                wait(lambda: chrome.find_elements(By.CSS_SELECTOR, '.wanted'))
                time.sleep(.5); chrome.save_screenshot(str(folder/f'app-cell-{name}'))
            finally: chrome.quit()

def wait(true, seconds=30):
    "Until something is true"
    end = time.time()+seconds
    while not true():
        if time.time() > end: raise TimeoutError('it did not happen')
        time.sleep(.05)

def main(notebooks='nbs', folder=root/'tests/screens'):
    folder.mkdir(parents=True, exist_ok=True)
    process,url = start(notebooks, cwd=root)
    def indexed(): return b'busy' not in (said := urlopen(f'{url}status').read()) and b' 0 passages' not in said
    try: wait(indexed, 600); shoot(url, folder)
    finally: process.terminate(); process.wait(10)
    (root/'nbs/images').mkdir(exist_ok=True)
    shutil.copy(folder/'app-cell-1280-light.png', root/'nbs/images/app-cell.png')

if __name__ == '__main__': main(*sys.argv[1:2], *map(Path, sys.argv[2:3]))
