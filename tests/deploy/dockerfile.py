"""The commands of an instruction of the Dockerfile, one a line, as a shell takes them. usage: dockerfile.py INSTRUCTION"""

import json
import re
import shlex
import sys
from pathlib import Path

text = (Path(__file__).parents[2] / "Dockerfile").read_text()
lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
for line in lines:
    instruction, _, rest = line.partition(" ")
    if instruction == sys.argv[1]:
        command = re.sub(r"^(--\S+\s+)*(CMD\s+)?", "", rest.strip())
        print(shlex.join(json.loads(command)) if command.startswith("[") else command)
