"""Forget a person: the same as `memstore forget`.

python scripts/forget_me.py --where user=u_123             # shows what would go
python scripts/forget_me.py --where user=u_123 --yes --report erased.json
python scripts/forget_me.py verify erased.json
"""

import sys

from app.cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["forget"]
    main()
