"""The cases of the comparison with a peer: command lines and files of configuration.

In: a seed. Out: a list of cases, each with the place and the class of its value. The table of
expected differences in docs/compatibility.md names places and classes.
"""

import random
from typing import NamedTuple

SEED = 18

#: The keys of `cfg.yaml` that the original daemon has, with a value that it takes.
KEYS = {
    "TotalBufferSizeMB": "24",
    "Concurrency": "3",
    "Region": "file-1",
    "Endpoint": "http://127.0.0.1:9000",
    "Socket.UDPAddress": '"127.0.0.1:2001"',
    "Socket.TCPAddress": '"127.0.0.1:2002"',
    "Logging.LogRotation": "false",
    "Logging.LogLevel": "warn",
    "Logging.LogPath": "own.log",
    "LocalMode": "true",
    "ResourceARN": "arn:aws:ec2:x",
    "RoleARN": "arn:aws:iam::123456789012:role/x",
    "NoVerifySSL": "true",
    "ProxyAddress": '"http://127.0.0.1:3128"',
    "Version": "2",
}

#: The flags that the original daemon has: short name, long name, and a value that it takes.
FLAGS = {
    "-a": ("resource-arn", "arn:aws:ec2:x"),
    "-b": ("bind", "127.0.0.1:2001"),
    "-c": ("config", "given.yaml"),
    "-f": ("log-file", "own.log"),
    "-l": ("log-level", "warn"),
    "-m": ("buffer-memory", "24"),
    "-n": ("region", "flag-1"),
    "-o": ("local-mode", None),
    "-p": ("proxy-address", "http://127.0.0.1:3128"),
    "-r": ("role-arn", "arn:aws:iam::123456789012:role/x"),
    "-t": ("bind-tcp", "127.0.0.1:2002"),
    "-v": ("version", None),
    "-h": ("help", None),
}

#: Values of keys, as they are written, by class.
VALUES = {
    "empty": [""],
    "null": ["null", "Null", "NULL"],
    "tilde": ["~"],
    "empty text": ['""', "''"],
    "zero": ["0", "-0", "+0", "0.0", "0x0"],
    "small": ["1", "2", "3", "4"],
    "integer": ["5", "16", "+24", "100", "999", "1000"],
    "large": ["1001", "5000", "2000"],
    "negative": ["-1", "-3", "-1000"],
    "hex": ["0x10", "0X1f", "-0x10", "0xg"],
    "octal": ["010", "0o20", "0777", "08", "00"],
    "binary": ["0b11", "0b101", "-0b11", "0b2"],
    "underscores": ["1_000", "_1", "1_", "1__0", "0x_1f"],
    "whole float": ["24.0", "3.", "1e2", "5.0e0", "+24.0"],
    "fraction": ["24.5", "3.999", "0.5", "-0.5", "2.5", ".5"],
    "huge": [
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999",
        "1e19",
        "1e400",
    ],
    "not finite": [".inf", "-.inf", ".nan", "inf", "NaN"],
    "quoted number": ['"8"', "'24'", '"0x10"', '"3.0"'],
    "sexagesimal": ["1:30", "190:20:30", "20:30:40.5"],
    "true": ["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"],
    "false": ["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"],
    "odd boolean": ["tRUE", "yEs", "oN", "t", "f", "T", "enable"],
    "quoted boolean": ['"true"', "'false'", '"yes"', '"Off"'],
    "list": ["[]", "[1]", "[a, b]", "\n  - a\n  - b"],
    "map": ["{}", "{a: 1}", "{a: {b: c}}"],
    "word": ["x", "loud", "foo.bar", "a b", "1a", "x-1"],
    "date": ["2001-01-01", "2001-12-14t21:59:43.10-05:00"],
    "unicode": ["ü", '"\\u00fc"', "日本", '"\\ud83d\\ude00"', "\U0001f600", '"a\\u0000b"'],
    "spaces": ['" x"', '"x "', '" 24 "', "  24  ", '"\\t"', '" "', '"a\\nb"'],
    "block": ["|\n  x\n", ">\n  x\n  y\n", "|-\n  24"],
    "tagged": [
        "!!str 5",
        "!!int 5",
        '!!int "5"',
        "!!bool yes",
        "!!float 5",
        "!!null x",
        "!x 5",
        "!!binary aGk=",
    ],
    "anchor": ["&a 5", "&a text", "*a"],
    "syntax": [
        "[",
        "{",
        '"',
        "'",
        "@x",
        "`x",
        "%x",
        "- x",
        "a: b",
        "!<",
        "&",
        "*",
        "x #y",
        "#x",
        "? x",
        ", x",
        "\t5",
        "x: [y",
    ],
}

#: Further values of single keys and flags.
ADDRESSES = [
    "127.0.0.1:2005", ":2005", "0.0.0.0:2005", "[::1]:2005", "[::]:2005", "localhost:2005",
    "[::ffff:127.0.0.1]:2005", "[::ffff:7f00:1]:2005", "[127.0.0.1]:2005", "[localhost]:2005",
    "[::ffff:0.0.0.0]:2005", "127.0.0.1:02005", "127.0.0.1:+2005", "127.0.0.1:0", ":0",
    "127.0.0.2:2005", "[0:0:0:0:0:0:0:1]:2005", "LOCALHOST:2005",
]  # fmt: skip
NO_ADDRESSES = [
    "2005", "127.0.0.1", "localhost", "[::1]", "127.0.0.1:70000", "127.0.0.1:-1", "127.0.0.1:x",
    "127.0.0.1:2005x", "127.0.0.1:20.5", "a:b:c", "127.0.0.1:2005:1", "[::1:2005",
    "127.0.0.1]:2005", "[]", "http://127.0.0.1:2005", "127.0.0.1:2005/", "127.0.0.1 2005",
    "127.0.0.1:99999999999", "x", "::", "[[::1]]:2005", "127.0.0.1:0x7d5", "127.0.0.1:2_005",
]  # fmt: skip
EMPTY_PORTS = ["127.0.0.1:", ":", "[::1]:"]
SERVICES = ["127.0.0.1:http", "127.0.0.1:domain"]
FOREIGN_ADDRESSES = ["192.0.2.1:2005", "[2001:db8::1]:2005", "8.8.8.8:2005"]
NAMES = ["no-such-host.invalid:2005", "*:2005", "127.0.0.1.x:2005", " 127.0.0.1:2005"]
BARE_IPV6 = ["::1:2005", ":::2005"]
LEVELS = ["dev", "debug", "info", "warn", "error", "prod"]
WARNING = ["warning"]
UPPER_LEVELS = ["DEBUG", "Info", "WARN", "Error", "PROD"]
UNKNOWN_LEVELS = ["trace", "fatal", "err", "critical", "off", "none", "verbose", "warn,error", "2"]
PROXIES = [
    "http://127.0.0.1:3128", "http://proxy.invalid:3128", "https://127.0.0.1:3128",
    "http://user:pass@127.0.0.1:3128", "http://127.0.0.1", "http://[::1]:3128",
    "http://127.0.0.1:3128/", "HTTP://127.0.0.1:3128", "http://u%40x:p%23@127.0.0.1:3128",
]  # fmt: skip
BARE_PROXIES = ["127.0.0.1:3128", "10.0.0.1:8080", "user:p@127.0.0.1:3128"]
NAMED_PROXIES = ["localhost:3128", "proxy.invalid", "proxy.invalid:8080", "127.0.0.1"]
SOCKS = ["socks5://127.0.0.1:1080", "socks5h://127.0.0.1:1080"]
NO_PROXIES = ["ftp://127.0.0.1", "socks4://127.0.0.1:1080", "http://", "http:///x", "://x"]
BAD_PROXIES = ["http://127.0.0.1:x", "http://[::1", "http://a b", "http://127.0.0.1:3128\x01",
               "http://%zz@127.0.0.1"]  # fmt: skip
PROXY_PATHS = ["http://127.0.0.1:3128/path", "http://127.0.0.1:3128/?a=b"]
ENDPOINTS = [
    "http://127.0.0.1:9000", "https://127.0.0.1:9443", "http://127.0.0.1:9000/",
    "http://127.0.0.1:9000/prefix", "https://xray.eu-west-1.amazonaws.com",
    "HTTPS://127.0.0.1:9443", "http://[::1]:9000", "http://localhost",
]  # fmt: skip
NO_ENDPOINTS = [
    "127.0.0.1:9000", "xray.eu-west-1.amazonaws.com", "ftp://127.0.0.1", "http://", "//127.0.0.1",
    "http://u:p@127.0.0.1:9000", "http://127.0.0.1:9000?a=b", "http://127.0.0.1:x", "http://a b",
]  # fmt: skip
REGIONS = ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1", "mars-1", "EU-WEST-1", "x"]
BAD_REGIONS = ["eu west 1", "a/b", "a\nb", "ü"]

SPECIAL = {
    ("Socket.UDPAddress", "Socket.TCPAddress", "-b", "-t"): {
        "address": ADDRESSES,
        "no address": NO_ADDRESSES,
        "empty port": EMPTY_PORTS,
        "service name": SERVICES,
        "foreign address": FOREIGN_ADDRESSES,
        "unknown name": NAMES,
        "IPv6 without brackets": BARE_IPV6,
    },
    ("Logging.LogLevel", "-l"): {
        "level": LEVELS,
        "warning": WARNING,
        "upper-case level": UPPER_LEVELS,
        "unknown level": UNKNOWN_LEVELS,
    },
    ("ProxyAddress", "-p"): {
        "proxy": PROXIES,
        "proxy without scheme": BARE_PROXIES,
        "named proxy without scheme": NAMED_PROXIES,
        "SOCKS": SOCKS,
        "no proxy": NO_PROXIES,
        "bad proxy": BAD_PROXIES,
        "proxy with path": PROXY_PATHS,
    },
    ("Endpoint",): {"endpoint": ENDPOINTS, "no endpoint": NO_ENDPOINTS},
    ("Region", "-n"): {"region": REGIONS, "no region": BAD_REGIONS},
    ("Logging.LogPath", "-f"): {
        "path": ["own.log", "./own.log", "sub/own.log"],
        "no file": [".", "/", "/proc/x/y"],
    },
}

#: Values of flags by class.
FLAG_VALUES = {
    "empty text": [""],
    "zero": ["0", "-0", "+0", "00", "0x0"],
    "small": ["1", "2", "3", "4"],
    "integer": ["5", "16", "+24", "100"],
    "large": ["1001", "2000"],
    "negative": ["-1", "-3", "-1000"],
    "hex": ["0x10", "0X1f", "-0x10", "0xg", "0x"],
    "octal": ["010", "0o20", "0O20", "08", "0o8"],
    "binary": ["0b11", "0B101", "0b2"],
    "underscores": ["1_0", "_1", "1_", "1__0", "0x_1f", "0_17"],
    "float": ["24.0", "3.", "1e2", "24.5"],
    "huge": ["9223372036854775808", "99999999999999999999999", "-9223372036854775809"],
    "true": ["1", "t", "T", "true", "TRUE", "True"],
    "false": ["0", "f", "F", "false", "FALSE", "False"],
    "odd boolean": ["yes", "on", "tRUE", "y", "2", "no"],
    "word": ["x", "loud", "foo.bar", "a b", "null", "~", "[]", "{}", "-", "--", "=", "=x", "-x"],
    "unicode": ["ü", "日本", "\U0001f600"],
    "spaces": [" ", " 24", "24 ", "\t", "a\nb", " x "],
    "quoted": ['"24"', "'x'", '""'],
}

#: Command lines that are about the form of the flags.
LINES = {
    "no value": [[flag] for flag in FLAGS if FLAGS[flag][1]],
    "unknown flag": [["-x"], ["--x=1"], ["-B", "x"], ["-nn", "x"], ["--Region", "x"], ["-no"],
                     ["-n1"], ["-test.v"], ["-receiver-x"]],
    "bad syntax": [["---n", "x"], ["-=x"], ["--=x"], ["---"], ["-=" ], ["----x"]],
    "words": [["x"], ["-"], ["x", "-n", "y"], ["--", "-n", "y"], ["-n", "y", "--", "-x"],
              ["-o", "true"], ["-o", "false", "-n", "y"], ["-n", "y", "x", "-z"], [""],
              ["-n", "--"], ["-n", "-o"], ["-a", "-n", "z"]],
    "repeated flag": [["-n", "a", "-n", "b"], ["-n", "a", "--region", "b"], ["-m", "2", "-m", "24"],
                      ["-m", "24", "-m", "2"], ["-o", "-o=false"], ["-o=false", "-o"],
                      ["-b", "x", "-b", "127.0.0.1:2005"], ["-n", "a", "-n", ""]],
    "version and help": [["-v"], ["--version"], ["-v=true"], ["-v=false"], ["-v", "-x"],
                         ["-v", "-m", "x"], ["-v", "-m", "1"], ["-v", "-t", "x"], ["-h"],
                         ["--help"], ["-help"], ["-h", "-v"], ["-v", "-h"]],
    "help with value": [["-h=false"], ["--help=x"], ["-h=0"]],
    "missing file": [["-c", "missing.yaml"], ["-c=missing.yaml"], ["-c", "."], ["-c", "/"]],
}  # fmt: skip

#: Whole files.
FILES = {
    "empty file": ["", " ", "\n\n", "# x\n", "---\n", "...\n", "null\n", "~\n"],
    "no map": ["- a\n", "x\n", "5\n", "[]\n", '"x"\n', "true\n"],
    "empty map": ["{}\n", "---\n{}\n"],
    "version only": ["Version: 2\n", "Version: 1\n", "---\nVersion: 2\n", "---\nVersion: 2\n...\n",
                     "{Version: 2}\n", '{"Version": 2}\n', "Version: 2", '"Version": 2\n',
                     "Version:   2   # x\n", "%YAML 1.1\n---\nVersion: 2\n"],
    "windows": ["\ufeffVersion: 2\r\nRegion: x\r\n", "Version: 2\r\n", "Version: 2\rRegion: x\r"],
    "bad version": ["Version: 0\n", "Version: 3\n", "Version: -1\n", "Version: 1.5\n",
                    "Version: '2'\n", "Version: two\n", "Version: [2]\n", "Region: x\n"],
    "unknown key": ["Version: 2\nRegoin: x\n", "Version: 2\nversion: 2\n", "Version: 2\nregion: x\n",
                    "Version: 2\nSocket: {UdpAddress: x}\n", "Version: 2\nx: {y: {z: 1}}\n",
                    "Version: 2\nSocket: {UDPAddress: '127.0.0.1:2005', x: 1}\n"],
    "unknown empty key": ["Version: 2\nRegoin:\n", "Version: 2\nSocket: {x: }\n"],
    "odd key": ["Version: 2\n5: x\n", "Version: 2\ntrue: x\n", "Version: 2\n1.5: x\n"],
    "odder key": ["Version: 2\n~: x\n", "Version: 2\n? [a]\n: x\n", "Version: 2\n? {a: b}\n: x\n"],
    "old key": ["Version: 2\nProfile: {CPU: x}\n", "Version: 2\nProfile: {Memory: x}\n",
                "Version: 2\nSocket: {BufferSizeKB: 5}\n", "Version: 2\nLogging: {LogFormat: x}\n",
                "Version: 2\nProcessor: {BatchProcessorQueueSize: 5}\n", "Version: 2\nLogRotation: true\n",
                "Version: 2\nProcessor: {Region: x}\n", "Version: 2\nMemoryLimit: 5\n",
                "Version: 2\nProcessor: {Endpoint: x}\n", "Version: 2\nProcessor: {Routine: 5}\n"],
    "proxyserver": ["Version: 2\nproxyserver: {idleconntimeout: 5}\n",
                    "Version: 2\nproxyserver: {maxidleconns: 5, maxidleconnsperhost: 2}\n"],
    "empty section": ["Version: 2\nSocket:\n", "Version: 2\nLogging: ~\n"],
    "section of no keys": ["Version: 2\nSocket: {}\n", "Version: 2\nLogging: {}\n"],
    "section without keys": ["Version: 2\nSocket: x\n", "Version: 2\nSocket: []\n",
                             "Version: 2\nLogging: 5\n", "Version: 2\nLogging: [LogLevel]\n",
                             'Version: 2\nSocket: ""\n'],
    "repeated key": ["Version: 2\nRegion: a\nRegion: b\n", "Version: 2\nVersion: 1\n",
                     "Version: 1\nVersion: 2\n", "Version: 2\nTotalBufferSizeMB: 10\nTotalBufferSizeMB: 12\n",
                     "Version: 2\nRegion: a\nRegion: ''\n",
                     "Version: 2\nLogging: {LogLevel: warn, LogLevel: error}\n",
                     "Version: 2\nConcurrency: 2\nConcurrency: 4\nConcurrency: 6\n",
                     "Version: 2\nVersion: 3\n", "Version: 3\nVersion: 2\n"],
    "repeated section": ["Version: 2\nSocket: {UDPAddress: '127.0.0.1:2005'}\nSocket: {TCPAddress: '127.0.0.1:2006'}\n",
                         "Version: 2\nSocket: {UDPAddress: '127.0.0.1:2005'}\nSocket: {UDPAddress: '127.0.0.1:2006'}\n"],
    "repeated bad key": ["Version: 2\nTotalBufferSizeMB: x\nTotalBufferSizeMB: 12\n",
                         "Version: 2\nConcurrency: [1]\nConcurrency: 5\n"],
    "repeated empty key": ["Version: 2\nRegion: a\nRegion:\n", "Version: 2\nConcurrency: 5\nConcurrency: ~\n"],
    "merge": ["Version: 2\nx: &x {UDPAddress: '127.0.0.1:2005'}\nSocket:\n  <<: *x\n",
              "a: &a {Region: merged}\n<<: *a\nVersion: 2\n"],
    "anchors": ["Version: 2\nRegion: &r x\nResourceARN: *r\n", "Version: &v 2\nTotalBufferSizeMB: 10\nConcurrency: *v\n"],
    "two documents": ["Version: 2\nRegion: a\n---\nVersion: 2\nRegion: b\n", "Version: 2\n---\nx\n",
                      "Version: 2\n...\n---\n[\n"],
    "indentation": ["  Version: 2\n  Region: x\n", "Version: 2\nSocket:\n      UDPAddress: '127.0.0.1:2005'\n",
                    "Version: 2\nSocket:\nUDPAddress: x\n", "Version: 2\n Region: x\n",
                    "Version: 2\nSocket:\n\tUDPAddress: x\n", "Version: 2\nSocket: {\n  UDPAddress: '127.0.0.1:2005'\n}\n",
                    "Version: 2\nSocket: {\nUDPAddress: '127.0.0.1:2005'\n}\n"],
    "no space": ["Version:2\n", "Version: 2\nRegion:x\n"],
    "control": ["Version: 2\nRegion: a\x00b\n", "Version: 2\nRegion: a\x07b\n", "Version: 2\n\x00",
                "Version: 2\nRegion: a\x7fb\n", "Version: 2\nRegion: a\u0085b\n", "Version: 2\nRegion: a\u2028b\n"],
    "tabs": ["Version:\t2\n", "Version: 2\t\nRegion:\tx\t# y\n", "Version: 2\n\t\n", "Version: 2\n\t# x\n"],
    "comments": ["Version: 2 # x\nResourceARN: x#y\n", "Version: 2\nRegion: 'x' #y\n", "Version: 2 #\n#"],
    "nothing but syntax": ["[", "{", "Version: [2\n", "Version: 2\n}\n", ":\n", "? \n", "!!\n", "Version: 2\n*a\n"],
}  # fmt: skip


class Case(NamedTuple):
    """One case: what is run, and where its value stands."""

    #: A flag, a key, "file" or "line"; for a flag over a key of the file, both: "-m over KEY".
    place: str
    value_class: str
    #: The text of the configuration file, or None.
    file: str | None
    #: "given" if `-c` names the file, else "found".
    way: str
    flags: tuple


def with_key(key, value):
    """Returns the text of a file in which `key` has `value`, as written."""
    section, _, name = key.rpartition(".")
    lines = "" if key == "Version" else "Version: 2\n"
    if not section:
        return f"{lines}{key}: {value}\n"
    if "\n" in value:
        value = value.replace("\n", "\n  ")
    return f"{lines}{section}:\n  {name}: {value}\n"


def quoted(value):
    """Returns a text as a YAML text in double quotes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + escaped.replace("\x01", "\\x01").replace("\t", "\\t") + '"'


def special(place):
    """Returns the further values of a key or flag by class."""
    return {name: values for places, classes in SPECIAL.items() if place in places
            for name, values in classes.items()}  # fmt: skip


def key_cases():
    """Returns cases with one key of the file."""
    for key in KEYS:
        values = [(name, text) for name, texts in VALUES.items() for text in texts]
        values += [(name, quoted(text)) for name, texts in special(key).items() for text in texts]
        for number, (name, text) in enumerate(values):
            way = "given" if number % 2 else "found"
            file = with_key(key, text)
            if key == "NoVerifySSL":
                # The endpoint of the fake with a certificate that nobody trusts.
                endpoint = "Version: 2\nEndpoint: https://127.0.0.1:9443\n"
                file = file.replace("Version: 2\n", endpoint, 1)
            yield Case(key, name, file, way, ())


def flag_cases():
    """Returns cases with one flag."""
    for flag, (long_name, good) in FLAGS.items():
        if flag == "-c":
            continue
        classes = FLAG_VALUES | special(flag)
        values = [(name, text) for name, texts in classes.items() for text in texts]
        for number, (name, text) in enumerate(values):
            forms = [(f"{flag}={text}",), (f"--{long_name}={text}",), (f"-{long_name}={text}",)]
            if good is not None:
                forms += [(flag, text), (f"--{long_name}", text)]
            if flag not in ("-v", "-h") or name in ("true", "false", "odd boolean"):
                yield Case(flag, name, None, "found", forms[number % len(forms)])
    for name, lines in LINES.items():
        for line in lines:
            yield Case("line", name, None, "found", tuple(line))


def file_cases():
    """Returns cases with a whole file, both given and found."""
    for name, texts in FILES.items():
        for text in texts:
            yield Case("file", name, text, "given", ())
            yield Case("file", name, text, "found", ())


def flag_over_key_cases(choose):
    """Returns cases with a flag over a key of the file, both good or bad."""
    pairs = {
        "-m": "TotalBufferSizeMB", "-n": "Region", "-b": "Socket.UDPAddress", "-l": "Logging.LogLevel",
        "-t": "Socket.TCPAddress", "-o": "LocalMode", "-a": "ResourceARN", "-r": "RoleARN",
        "-p": "ProxyAddress", "-f": "Logging.LogPath",
    }  # fmt: skip
    for flag, key in pairs.items():
        _, good = FLAGS[flag]
        line = (flag,) if good is None else (flag, good)
        classes = VALUES | {name: [quoted(text) for text in texts]
                            for name, texts in special(key).items()}  # fmt: skip
        for name, texts in classes.items():
            for text in choose.sample(texts, min(2, len(texts))):
                way = choose.choice(["given", "found"])
                yield Case(f"{flag} over {key}", name, with_key(key, text), way, line)


def mixed_cases(choose, count):
    """Returns cases with several good keys and flags, in any order and spelling."""
    for _ in range(count):
        keys = choose.sample(sorted(KEYS), choose.randint(0, 6))
        keys = [key for key in keys if key != "Version"]
        sections = {}
        for key in keys:
            section, _, name = key.rpartition(".")
            sections.setdefault(section, []).append((name, KEYS[key]))
        blocks = [f"{name}: {value}\n" for name, value in sections.pop("", [])]
        for section, values in sections.items():
            if choose.random() < 0.5:
                inner = ", ".join(f"{name}: {value}" for name, value in values)
                blocks.append(f"{section}: {{{inner}}}\n")
            else:
                blocks.append(f"{section}:\n" + "".join(f"   {n}: {v}\n" for n, v in values))
        blocks.append(choose.choice(["Version: 2\n", "Version: 1\n", "Version:  2  # x\n"]))
        choose.shuffle(blocks)
        end = choose.choice(["\n", "\r\n"])
        flags = []
        for flag in choose.sample(sorted(set(FLAGS) - {"-c", "-v", "-h"}), choose.randint(0, 4)):
            long_name, good = FLAGS[flag]
            name = choose.choice([flag, f"--{long_name}", f"-{long_name}"])
            if good is None:
                flags.append(choose.choice([name, f"{name}=true", f"{name}=1"]))
            elif choose.random() < 0.5:
                flags.append(f"{name}={good}")
            else:
                flags += [name, good]
        text = "".join(blocks).replace("\n", end)
        way = choose.choice(["given", "found"])
        yield Case("mixed", "good values", text, way, tuple(flags))


def mutated_cases(choose, count):
    """Returns cases with a good file in which a few characters are changed."""
    good = "".join(with_key(key, value).replace("Version: 2\n", "") for key, value in KEYS.items()
                   if "." not in key and key != "Version")  # fmt: skip
    good += 'Socket:\n  UDPAddress: "127.0.0.1:2001"\nLogging:\n  LogLevel: "debug"\nVersion: 2\n'
    for _ in range(count):
        lines = good.splitlines(keepends=True)
        text = "".join(line for line in lines if choose.random() < 0.6 or line[0] in "VSL ")
        for _ in range(choose.randint(1, 3)):
            place = choose.randrange(len(text))
            new = choose.choice(list(" :#-[]{}\"'\n\t,&*!|>%@0aZ\\?~") + [""])
            text = text[:place] + new + text[place + choose.randint(0, 1) :]
        yield Case("mutated", "few characters", text, choose.choice(["given", "found"]), ())


def cases():
    """Returns all cases, the same ones each time."""
    choose = random.Random(SEED)
    found = [*key_cases(), *flag_cases(), *file_cases(), *flag_over_key_cases(choose)]
    found += [*mixed_cases(choose, 250), *mutated_cases(choose, 200)]
    # A process cannot have an argument with a NUL. At level warn the peer does not say its values.
    level = ("-l", "--log-level", "-log-level")
    is_quiet = lambda case: case.place == "mixed" and any(it.startswith(level) for it in case.flags)
    has_nul = lambda case: any("\0" in flag for flag in case.flags)
    found = [case for case in found if not has_nul(case) and not is_quiet(case)]
    return list(dict.fromkeys(found))
