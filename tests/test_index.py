"What the index promises when several processes want it at once."
import subprocess, sys
from semsearch.index import open_index

def test_eight_processes_may_make_the_same_index_at_once(tmp_path):
    program = 'import sys; from semsearch.index import open_index; open_index(sys.argv[1]).execute("insert into info values(?,1)", (sys.argv[2],))'
    running = [subprocess.Popen([sys.executable, '-c', program, str(tmp_path/'new.db'), str(i)], stderr=subprocess.PIPE, text=True)
               for i in range(8)]
    assert [process.communicate()[1] for process in running] == ['']*8
    db = open_index(tmp_path/'new.db')
    assert db.execute('select count(*) from info').get == 8
    assert db.pragma('integrity_check') == 'ok'
