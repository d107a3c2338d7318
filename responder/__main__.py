"""`python -m responder` is `responder`."""

import sys

from responder.cli import main

sys.exit(main())
