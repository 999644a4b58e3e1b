# label: long
# From a stop signal to the durable version takes less than five seconds, in whatever phase it arrives, for a state that
# is saved within a second.
import shutil
import sys
import tempfile

from stop_in_time import stop_everywhere

folder = tempfile.mkdtemp()
stop_everywhere(sys.argv[1], folder, times=20, epochs=60, megabytes=32, seed=2)
shutil.rmtree(folder)
