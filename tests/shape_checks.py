"""What checks shapes and types in the tests: beartype, to which an integer is a float, as to pyright."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
