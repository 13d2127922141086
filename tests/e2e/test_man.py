"""docs/man/: the manual pages name what the programs have, all of it and nothing else.

The pages are read as mandoc shows them, on lines so long that nothing is broken: a heading at the
margin, text five columns in, and in a list the tag five columns in and what it says eight more.
"""

import functools
import glob
import os
import re

import pytest

from harness.procs import run
from harness.programs import NAMES, TOP, program, tool
from test_docs import BLOCKS

FOLDER = os.path.join(TOP, "docs", "man")
PAGES = {os.path.basename(p).rsplit(".", 1)[0]: p
         for p in sorted(glob.glob(os.path.join(FOLDER, "*.[0-9]")))}
ELSEWHERE = {"systemd(1)", "fnmatch(3)"}
# What the examples of the pages have besides the commands of the documents.
EXAMPLES_RUN_ELSEWHERE = {
    "tekd --sample-config": "test_sample_is_what_tekd_prints",
    "tekd --config tekd.yaml --check": "test_admin.py, test_signkey.py",
}

TEXT_COLUMN = 5
TAG_WIDTH = 8  # of "-width Ds", with the two blanks behind it
WIDEST = 1000  # that mandoc takes


# ---- a page as it is shown -----------------------------------------------------------------------

def shown(name, width):
    text = run([tool("mandoc"), "-Tascii", f"-Owidth={width}", PAGES[name]]).stdout
    return re.sub(".\b", "", text).splitlines()  # bold and underlined by overstriking


def depth(line):
    return len(line) - len(line.lstrip())


@functools.cache
def sections(name):
    """{heading: [lines]}, those of a section's parts under their own headings."""
    found, lines = {}, []
    for line in shown(name, WIDEST)[1:-1]:
        if line and depth(line) < TEXT_COLUMN:
            assert line.strip() not in found, line
            lines = found.setdefault(line.strip(), [])
        elif line:
            lines.append(line)
    return found


def entries(lines, column=TEXT_COLUMN):
    """[(tag, text)] of the lists in that column."""
    found, inside = [], False
    short = re.compile(rf"^ {{{column}}}(?=.{{{TAG_WIDTH}}}\S)(\S+(?: \S+)?) {{2,}}(\S.*)$")
    for line, behind in zip(lines, [*lines[1:], ""]):
        one = short.match(line)
        if one and len(one[1]) <= TAG_WIDTH - 2:
            found.append(one.groups())
        elif depth(line) == column and depth(behind) == column + TAG_WIDTH:
            found.append((line.strip(), ""))
        elif inside and depth(line) > column:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}".strip())
        else:
            inside = False
            continue
        inside = True
    return found


def synopsis(name):
    return [line.strip() for line in sections(name)["SYNOPSIS"]]


OPTION = re.compile(r"[][]|(--[a-z][a-z0-9-]*)(?: ([^][| (-][^][ )]*))?")


def options_in(text):
    """{(option, its argument or "", whether it stands in no bracket)} of a command line."""
    found, brackets = set(), 0
    for m in OPTION.finditer(text):
        brackets += {"[": 1, "]": -1}.get(m[0], 0)
        if m[1]:
            found.add((m[1], m[2] or "", brackets == 0))
    assert brackets == 0, text
    return found


def without_need(options):
    return {o[:2] for o in options}


def explained(lines, column=TEXT_COLUMN):
    """{(option, argument or "")} of the lists; each once."""
    tags = [tuple((tag + " ").split(" ")[:2]) for tag, _ in entries(lines, column)
            if tag.startswith("--")]
    assert len(set(tags)) == len(tags)
    return set(tags)


def words_of(line):
    return tuple(re.match(r"[a-z-]+(?: [a-z][a-z-]*)*", line)[0].split())


def heads(name):
    return [tag for tag, _ in entries(sections(name)["COMMANDS"])]


@functools.cache
def commands(name):
    """{words: options} of the commands of a program; without commands under ()."""
    if name in ("tekctl", "tek-provision"):
        # What stands for several options.
        token = re.search(r"TOKEN stands for (.*?),", "\n".join(sections(name)["COMMANDS"]))
        lines = [re.sub(r"\bTOKEN\b", token[1] if token else "", h) for h in heads(name)]
    else:
        lines = [line[len(name) + 1:] for line in synopsis(name)]
    found = {}
    for line in lines:
        words = () if line.startswith("--") else words_of(line) if line[0].islower() else None
        if words is not None:
            found[words] = found.get(words, set()) | options_in(line)
    if name == "tekctl":
        found["bsa", "set"] |= {(*o[:2], False) for o in found["bsa", "add"]}
    return found


# ---- what a program says of itself ---------------------------------------------------------------

@functools.cache
def help_of(name, *words):
    done = run([program(name), *words, "--help"], check=False)
    return done.stdout + done.stderr


def usage_of(name):
    """The command lines of a usage, each on one line."""
    text = re.search(r"usage: (.*?)(?:\n\n|\nexit status)", help_of(name), re.S)[1]
    return re.split(rf" (?={name} )", " ".join(text.split()))


def listed_options(text):
    """{(option, argument or ""): what is said of it} of the list that a help has."""
    return {m.group(1, 2): m[3] for m in
            re.finditer(r"^  (--\S+) ?(\S*) +(\S.*)$", text, re.M)}


def listed_commands(text):
    return {tuple(m[1].split()) for m in
            re.finditer(r"^  ([a-z]+(?: +[a-z]+)?)  ", text, re.M)}


# ---- the pages -----------------------------------------------------------------------------------

def test_every_program_has_a_page():
    assert set(PAGES) == {*NAMES, "tekd.yaml"}


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_terminal(name):
    assert [line for line in shown(name, 78) if len(line) > 80 or not line.isascii()] == []


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_refers_to_is_there(name):
    text = "\n".join("\n".join(lines) for lines in sections(name).values())
    ours = {f"{n}({p[-1]})" for n, p in PAGES.items()}
    assert set(re.findall(r"[a-z][a-z.-]*\(\d\)", text)) <= ours | ELSEWHERE
    documents = re.findall(r"/usr/share/doc/tekd/(\S+?)[:;,.]? ", text + " ")
    assert documents
    assert [d for d in documents if not os.path.exists(os.path.join(TOP, d))] == []


def command_lines(text):
    """Without comments, what is continued on one line; tekctl finds the socket by itself."""
    text = re.sub(r"(?m)^    \$ | +#.*$", "", text).replace("\\\n", " ")
    text = re.sub(r'"[^"]*"', lambda m: " ".join(m[0].split()), text)
    return {" ".join(line.replace("--socket tekd.sock ", "").split())
            for line in text.splitlines() if line.strip()}


@pytest.mark.parametrize("name", [n for n in PAGES if n != "tekd-hsm"])
def test_examples_are_commands_that_are_run(name):
    known = set(EXAMPLES_RUN_ELSEWHERE).union(*(command_lines(b.text) for b in BLOCKS.values()))
    lines = [line for line in sections(name)["EXAMPLES"] if depth(line) > TEXT_COLUMN]
    examples = command_lines("\n".join(lines))
    assert examples and examples <= known


# ---- options and commands ------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["tekd", "tekctl", "tek-audit", "tek-provision"])
def test_synopsis_is_the_usage(name):
    """Behind it there may be what a usage does not say of itself."""
    said, usage = synopsis(name), usage_of(name)
    assert said[:len(usage)] == usage
    assert set(said[len(usage):]) <= {f"{name} COMMAND --help", f"{name} --help | --version"}


@pytest.mark.parametrize("name", ["tekd", "tekd-hsm"])
def test_options_are_explained(name):
    said = explained(sections(name)["DESCRIPTION"])
    assert said == without_need(commands(name)[()])
    assert set(listed_options(help_of(name))) <= said
    assert {o for o, _ in said} == set(re.findall(r"--[a-z][a-z-]+", help_of(name)))


def test_commands_of_tekctl():
    listed = re.findall(r"^  (\S.*)\n      \S", help_of("tekctl").split("Commands:")[1], re.M)
    assert listed and heads("tekctl") == listed


def test_options_of_tekctl():
    general = explained(sections("tekctl")["DESCRIPTION"])
    assert general == set(listed_options(help_of("tekctl")))
    assert explained(sections("tekctl")["COMMANDS"], TEXT_COLUMN + TAG_WIDTH) == \
        without_need(commands("tekctl")["bsa", "add"])
    for words, options in commands("tekctl").items():
        listed = set(re.findall(r"--[a-z][a-z-]+", help_of("tekctl", *words)))
        assert listed - {o for o, _ in general} <= {o[0] for o in options}, words


@pytest.mark.parametrize("name", ["tek-provision", "tek-bsa"])
def test_commands_that_list_their_options(name):
    """Each with its argument, and whether it is required."""
    said = {words: options for words, options in commands(name).items() if words}
    assert set(said) == listed_commands(help_of(name))
    for words, options in said.items():
        listed = {(*o, "(required)" in text)
                  for o, text in listed_options(help_of(name, *words)).items()}
        assert options | {("--help", "", False), ("--json", "", False)} == listed, words


def test_options_of_tek_provision():
    listed = set().union(*(listed_options(help_of("tek-provision", *words))
                           for words in commands("tek-provision")))
    assert explained(sections("tek-provision")["OPTIONS"]) == listed | {("--version", "")}


def default_of(text):
    found = re.search(r"\(default (\S+)\)", text)
    return found and found[1]


@pytest.mark.parametrize("command", ["request", "listen", "collect"])
def test_options_of_tek_bsa(command):
    """With their defaults."""
    lines = [line for heading, lines in sections("tek-bsa").items()
             if heading == "All commands" or command in heading.split(", ") for line in lines]
    listed = listed_options(help_of("tek-bsa", command))
    assert explained(lines) == set(listed)
    assert {tag: default_of(text) for tag, text in entries(lines)} == \
        {" ".join(o).strip(): default_of(text) for o, text in listed.items()}


def test_options_of_tek_audit():
    parts = re.split(r"^ +Options? (?:of|instead of a) (\w+) ?:$",
                     "\n".join(sections("tek-audit")["DESCRIPTION"]), flags=re.M)[1:]
    said = {w: explained(t.splitlines()) for w, t in zip(parts[::2], parts[1::2])}
    assert said.pop("command") == without_need(commands("tek-audit")[()])
    assert said == {w[0]: without_need(o) for w, o in commands("tek-audit").items() if w}


REFUSED = re.compile("unrecognized option '--no-such-option'|unknown argument \"--no-such-option\"|"
                     "--no-such-option(?:: no| is no) option")
# What is done at once, whatever stands behind it; other tests do it.
AT_ONCE = {"--help", "--version", "--sample-config"}


@pytest.mark.parametrize("name", [n for n in NAMES if n != "tek-audit"])
def test_options_are_taken(name):
    """All of the page at once: the first one that its command refuses is one that there is not."""
    for words, options in commands(name).items():
        argv = [program(name), *words]
        if name == "tekctl":
            argv[1:1] = ["--socket", "/nonexistent"]
        for option, argument in sorted(without_need(options)):
            if option not in AT_ONCE:
                argv += [option, *({"": [], "FILE": ["/dev/null"]}.get(argument, ["1"]))]
        done = run([*argv, "--no-such-option"], check=False)
        # Without a command these say only how they are used.
        assert REFUSED.search(done.stderr) or (name, words) == ("tek-bsa", ()), (argv, done.stderr)
        assert done.returncode == 2, argv


def test_options_are_taken_by_tek_audit(tmp_path):
    """It says only that it is wrong usage: each option is tried with each command."""
    needed = {"verify": ["--key", "none", "--first"], "ledger": [], "prove": []}
    said = commands("tek-audit")
    everything = set().union(*(without_need(o) for w, o in said.items() if w))
    for command, options in needed.items():
        for option, argument in everything:
            more = [o for o in options if (option, o) != ("--since", "--first")]
            value = {"": [], "TIME": ["2026-11-22"]}.get(argument, ["none"])
            message = ["m"] if command == "prove" else []
            done = run([program("tek-audit"), command, "none", *message, *more, option, *value],
                       check=False, cwd=tmp_path)
            taken = (option, argument) in without_need(said[command,])
            assert done.returncode == (3 if taken else 2), (command, option, done.stderr)


# ---- exit statuses -------------------------------------------------------------------------------

def statuses(name):
    return [int(tag) for tag, _ in entries(sections(name)["EXIT STATUS"])]


@pytest.mark.parametrize("name", ["tekd", "tekctl", "tek-audit", "tek-provision"])
def test_exit_statuses_are_those_that_are_printed(name):
    printed = re.search(r"exit status: (.*)", help_of(name), re.S | re.I)[1]
    assert statuses(name) == [int(n) for n in re.findall(r"(?:^|,\s)(\d+) ", printed)]


@pytest.mark.parametrize("name", ["tek-audit", "tek-bsa", "tek-provision"])
def test_exit_statuses_are_those_of_the_documents(name):
    document = {"tek-provision": "provisioning"}.get(name, name)
    with open(os.path.join(TOP, "docs", f"{document}.md"), encoding="utf-8") as f:
        text = f.read()
    table = text[text.index("| exit status |"):].split("\n\n")[0]
    assert statuses(name) == [int(n) for n in re.findall(r"^\| (\d+) \|", table, re.M)]


# ---- the configuration ---------------------------------------------------------------------------

def forms():
    """{(section, key): form} of the texts that have one."""
    with open(os.path.join(TOP, "server", "config", "schema.c"), encoding="utf-8") as f:
        return {m.group(1, 2): m[3] for m in re.finditer(
            r"TEXT\((\w+), (\w+),(?:(?!TEXT\().)*?\.form = FORM_(\w+)", f.read(), re.S)}


def kind_of(limits, form):
    if " octets" in limits:
        return "Path" if form in ("PATH", "SOCKET") else "Text"
    if " entries" in limits:
        return "List"
    if limits.startswith("false or true"):
        return "Boolean"
    return "Choice" if " or " in limits else "Number"


def sample_settings():
    """{name: limits or None}, and the names of sections, as the sample has them."""
    settings, names, comment, section = {}, set(), [], ""
    for line in run([program("tekd"), "--sample-config"]).stdout.splitlines():
        key = re.match(r"( *)(?:- )?#?([a-z_0-9]+):(.*)", line)
        if not key:
            comment = [*comment, line.strip(" #")] if line else []
            continue
        section = section if key[1] else key[2]
        dot = {"listen": "[]."}.get(section, ".")
        name = f"{section}{dot}{key[2]}" if key[1] else section
        limits = comment and re.search(r"^.*; (?:required|default \S+)$", comment[-1])
        # Of a mapping in one line the keys stand in the comment.
        parts = re.split(r" - ([a-z_]+): ", " ".join(comment))[1:]
        settings.update({f"{name}.{k}": v.rsplit(". ", 1)[1]
                         for k, v in zip(parts[::2], parts[1::2])})
        if key[1] or limits:
            settings[name] = limits[0] if limits and not parts else None
        else:
            names.add(name)
        comment = []
    return settings, names


def test_settings_are_those_of_the_sample():
    """With kind, range and default."""
    settings, names = sample_settings()
    form = forms()
    said = {}
    for heading in ("General", *names):
        for tag, text in entries(sections("tekd.yaml")[heading]):
            assert tag not in said
            assert heading == "General" or tag.startswith(heading + ".")
            said[tag] = re.match(r"(.*?; (?:required|default \S+?))\. ", text)[1]
    expected = {}
    for name, limits in settings.items():
        key = tuple(name.split(".")[-2:])
        expected[name] = f"{kind_of(limits, form.get(key))}, {limits}" if limits else \
            "Mapping; default none"
    assert len(expected) > 60 and len(form) > 20
    assert said == expected


def test_sections_are_those_of_the_sample():
    _, names = sample_settings()
    headings = [h for h in sections("tekd.yaml") if h.islower()]
    assert len(headings) > 5 and set(headings) == names
