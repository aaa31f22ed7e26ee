"Hands what settings.ini says, and the version that nbdev keeps in `semsearch/__init__.py`, to setuptools."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup,find_packages

here = Path(__file__).parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(here/'settings.ini', encoding='utf-8')
settings = config['DEFAULT']

def lines(key): return [line.strip() for line in settings[key].splitlines() if line.strip()]

suffix = '_requirements'
setup(
    version = re.search(r"__version__\s*=\s*['\"](.+?)['\"]", (here/'semsearch/__init__.py').read_text(encoding='utf-8'))[1],
    packages = find_packages(include=['semsearch', 'semsearch.*']),
    package_data = {'semsearch': ['weights/*', 'static/*']},
    install_requires = lines('requirements'),
    extras_require = {key.removesuffix(suffix): lines(key) for key in settings if key.endswith(suffix)},
    entry_points = dict(console_scripts=lines('console_scripts'), nbdev=['semsearch=semsearch._modidx:d']),
)
