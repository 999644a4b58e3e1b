# From a stop signal to the durable version takes less than five seconds, in whatever phase it arrives: a slice of
# stop_in_time_long_test.py.
import shutil
import sys
import tempfile

from stop_in_time import stop_everywhere

folder = tempfile.mkdtemp()
stop_everywhere(sys.argv[1], folder, times=2, epochs=4, megabytes=4, seed=1)
shutil.rmtree(folder)
