"""`python -m responder` is `responder`."""

import sys

from responder.start import main

sys.exit(main())
