"Fixtures of the tests that try to break the index."
import multiprocessing
import pytest
from helpers import save_model, tiny_encoder

@pytest.fixture(scope='session')
def model(tmp_path_factory): return save_model(tmp_path_factory.mktemp('model'))

@pytest.fixture(scope='session')
def encoder(model): return tiny_encoder(model)

@pytest.fixture(scope='session')
def other_encoder(tmp_path_factory):
    "Another model: the same but for its weights"
    return tiny_encoder(save_model(tmp_path_factory.mktemp('other'), 21))

@pytest.fixture(scope='session')
def processes():
    "One server imports the models, and every child is a fork of it"
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['sentence_transformers', 'hypothesis', 'pytest', 'semsearch.index'])
    return context
