"""What the arguments of gen, select, run and function become, and what is refused by name."""

import inspect
from collections.abc import Callable

import pydantic
import pytest

import sapwood as sw
from sapwood.runtime.protocol import JsonSchema, LogprobOptions, Regex, SamplingParams

pytestmark = pytest.mark.timeout(30)


def sent(scripted, node, **options):
    """The request that this node makes."""
    client = scripted(lambda r: ["x"] * r.sampling.n)

    def body(s):
        s += "Q"
        s += node

    sw.function(body).run(backend=client, **options).sync()
    return client.requests[0]


EVERY_OPTION = {
    "max_tokens": 7,
    "min_tokens": 2,
    "n": 3,
    "stop": ("a", "b"),
    "stop_token_ids": (1, 2),
    "stop_regex": ("c+",),
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "frequency_penalty": 0.2,
    "presence_penalty": 0.3,
    "repetition_penalty": 1.1,
    "ignore_eos": True,
    "seed": 11,
}
RUN_NAMES = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}


@pytest.mark.parametrize("name", EVERY_OPTION)
@pytest.mark.parametrize("where", ["gen", "run", "gen over run"])
def test_every_option_reaches_the_request(scripted, name, where):
    value = EVERY_OPTION[name]
    defaults = SamplingParams()
    assert getattr(defaults, name) != value
    node = sw.gen("a") if where == "run" else sw.gen("a", **{name: value})
    options = {}
    if where != "gen":
        outer = value if where == "run" else getattr(defaults, name)
        options[RUN_NAMES.get(name, name)] = outer
    request = sent(scripted, node, **options)
    assert getattr(request.sampling, name) == value


def test_defaults_are_sglangs(scripted):
    assert sent(scripted, sw.gen("a")).sampling == SamplingParams(max_tokens=128, temperature=1.0)


def test_texts_may_stand_alone_and_bias_is_a_dict(scripted):
    node = sw.gen("a", stop="x", stop_regex="y", stop_token_ids=5, logit_bias={3: 1.5})
    sampling = sent(scripted, node).sampling
    assert (sampling.stop, sampling.stop_regex) == (("x",), ("y",))
    assert (sampling.stop_token_ids, sampling.logit_bias) == ((5,), ((3, 1.5),))


def test_a_gen_can_take_back_a_runs_stop(scripted):
    assert sent(scripted, sw.gen("a", stop=[]), stop="x").sampling.stop == ()


LOGPROBS = [
    ({}, None),
    ({"return_logprob": True}, LogprobOptions(-1, 0, False)),
    ({"return_logprob": True, "logprob_start_len": 0}, LogprobOptions(0, 0, False)),
    (
        {"return_logprob": True, "top_logprobs_num": 2, "return_text_in_logprobs": True},
        LogprobOptions(-1, 2, True),
    ),
    ({"return_logprob": False}, None),
]


@pytest.mark.parametrize("options, expected", LOGPROBS)
def test_logprob_options(scripted, options, expected):
    assert sent(scripted, sw.gen("a", **options)).logprobs == expected
    assert sent(scripted, sw.gen("a"), **options).logprobs == expected


class Person(pydantic.BaseModel):
    name: str


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
CONSTRAINTS = [
    ({"regex": "[ab]+"}, Regex("[ab]+"), ()),
    ({"json_schema": SCHEMA}, JsonSchema.of(SCHEMA), ()),
    ({"json_schema": '{"type": "integer"}'}, JsonSchema.of({"type": "integer"}), ()),
    (
        {"json_schema": Person},
        JsonSchema.of(Person.model_json_schema(), open_objects=False),
        (),
    ),
    ({"dtype": int}, Regex(r"[-+]?[0-9]+[ \n]*"), (" ", "\n")),
    ({"dtype": "float"}, Regex(r"[-+]?[0-9]*\.?[0-9]+[ \n]*"), (" ", "\n")),
    ({"dtype": bool}, Regex("(True|False)"), ()),
    ({"dtype": int, "stop": "x"}, Regex(r"[-+]?[0-9]+[ \n]*"), ("x", " ", "\n")),
]


@pytest.mark.parametrize("options, constraint, stop", CONSTRAINTS)
def test_constraints(scripted, options, constraint, stop):
    sampling = sent(scripted, sw.gen("a", **options)).sampling
    assert (sampling.constraint, sampling.stop) == (constraint, stop)


def test_gen_int_and_gen_string_are_gen_with_a_dtype(scripted):
    for short, dtype in ((sw.gen_int, int), (sw.gen_string, str)):
        one = sent(scripted, short("a", 9, stop="x", temperature=0.2))
        other = sent(scripted, sw.gen("a", 9, stop="x", temperature=0.2, dtype=dtype))
        assert one.sampling == other.sampling
        assert one.sampling.constraint is not None


SGLANG_ORDER = (
    "name max_tokens min_tokens n stop stop_token_ids stop_regex temperature top_p top_k min_p "
    "frequency_penalty presence_penalty ignore_eos return_logprob logprob_start_len "
    "top_logprobs_num return_text_in_logprobs dtype choices choices_method regex json_schema"
).split()


def test_positions_are_sglangs():
    names = list(inspect.signature(sw.gen).parameters)
    assert names[: len(SGLANG_ORDER)] == SGLANG_ORDER
    short = [n for n in SGLANG_ORDER[: SGLANG_ORDER.index("dtype")] if n != "min_tokens"]
    assert list(inspect.signature(sw.gen_int).parameters) == short
    assert list(inspect.signature(sw.gen_string).parameters) == short
    assert list(inspect.signature(sw.select).parameters)[:4] == [
        "name",
        "choices",
        "temperature",
        "choices_method",
    ]


class NoSchema(pydantic.BaseModel):
    """A model with a field that JSON has no type for."""

    call: Callable[[], None]


REFUSED = {
    "regex": lambda: sw.gen("a", regex="("),
    "json_schema": lambda: sw.gen("a", json_schema="{"),
    "json_schema ": lambda: sw.gen("a", json_schema=5),
    "json_schema  ": lambda: sw.gen("a", json_schema={"a": object()}),
    "json_schema   ": lambda: sw.gen("a", json_schema=NoSchema),
    "regex ": lambda: sw.gen("a", regex=5),
    "regex  ": lambda: sw.gen("a", regex=b"a"),
    "regex   ": lambda: sw.gen("a", regex="a{99999999999}"),
    "regex    ": lambda: sw.gen("a", regex="(" * 5_000),
    "dtype ": lambda: sw.gen("a", dtype=[]),
    "dtype": lambda: sw.gen("a", dtype="integer"),
    "dtype and regex": lambda: sw.gen("a", dtype=int, regex="a"),
    "choices and json_schema": lambda: sw.gen("a", choices=["x"], json_schema={}),
    "max_tokens": lambda: sw.gen("a", choices=["x"], max_tokens=3),
    "temperature": lambda: sw.gen("a", choices=["x"], temperature=1),
    "temperature ": lambda: sw.select("a", ["x"], temperature=0.5),
    "choices_method": lambda: sw.gen("a", choices_method=sw.greedy_token_selection),
    "choices_method ": lambda: sw.select("a", ["x"], choices_method="greedy"),
    "choices": lambda: sw.select("a"),
    "choices ": lambda: sw.select("a", []),
    "choices  ": lambda: sw.select("a", "xy"),
    "choices   ": lambda: sw.select("a", ["x", ""]),
    "choices    ": lambda: sw.select("a", ["x", 5]),
    "name": lambda: sw.gen(5),
    "num_api_spec_tokens": lambda: sw.function(num_api_spec_tokens=0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_where_it_is_said(name):
    with pytest.raises(sw.InvalidRequest, match=name.strip()):
        REFUSED[name]()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("[[:alpha:]]", r"regex: '\[\[:alpha:\]\]': the POSIX class \[:alpha:\] is not supported"),
        ("[[a]", "nested sets are not supported"),
        ("[a&&b]", "the set operator && is not supported"),
        ("(", "it is not a valid regex: missing "),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_re_only_warns_of_is_our_error(pattern, message):
    with pytest.raises(sw.InvalidRequest, match=message):
        sw.gen("a", regex=pattern)


BAD_VALUES = {  # option -> values of a wrong type or out of range
    "max_tokens": [-1, 1.5, "7", True],
    "min_tokens": [-1, "2", 0.5],
    "n": [0, 129, "2", False],
    "stop": [5, [5], [""], "", {"a": 1}, ["x"] * 33],
    "stop_token_ids": [5.0, "12", [1.5], [-1], -1, True, {1}, b"x"],
    "stop_regex": [5, "(", ["("], [5]],
    "temperature": [-1, "hot", [0], float("nan"), float("inf"), True],
    "top_p": [0, 1.1, "x"],
    "top_k": [0, -2, 1.5],
    "min_p": [-0.1, 1.1, "x"],
    "frequency_penalty": [-2.1, 2.1, "x"],
    "presence_penalty": [-2.1, 2.1, "x"],
    "repetition_penalty": [0, 2.1, "x"],
    "ignore_eos": [1, "yes"],
    "seed": ["x", 1.5, 2**64],
    "logit_bias": [[1], 5, {"a": 1}, {-1: 1}, {1: "x"}, {1: 101}],
    "return_logprob": [1, "yes"],
    "logprob_start_len": [-2, 0.5, "0"],
    "top_logprobs_num": [-1, 129, 1.5, "", False],
    "return_text_in_logprobs": [1, "yes"],
}
BAD = [(name, value) for name, values in BAD_VALUES.items() for value in values]


def test_the_table_of_bad_values_has_every_option():
    assert set(BAD_VALUES) == set(EVERY_OPTION) | {
        "logit_bias",
        "return_logprob",
        "logprob_start_len",
        "top_logprobs_num",
        "return_text_in_logprobs",
    }


def assert_named(error, name, value):
    """By name, and with the value that is wrong, or the item of it that is."""
    assert error.field == name
    message = str(error)
    assert message.startswith(f"{name}: ")
    parts = [value]
    if isinstance(value, list | dict):
        parts += [*value, *getattr(value, "values", list)()]
    assert any(repr(part) in message for part in (*parts, len(parts) - 1))


@pytest.mark.parametrize("name, value", BAD)
def test_bad_values_are_refused_by_the_gen_that_says_them(name, value):
    with pytest.raises(sw.InvalidRequest) as caught:
        sw.gen("a", **{name: value})
    assert_named(caught.value, name, value)


@pytest.mark.parametrize("name, value", BAD)
def test_bad_defaults_are_refused_by_the_run_in_its_own_words(scripted, name, value):
    @sw.function
    def program(s):
        raise AssertionError("the body must not run")

    client = scripted([])
    for said in {name, RUN_NAMES.get(name, name)}:
        with pytest.raises(sw.InvalidRequest) as caught:
            program.run(backend=client, **{said: value})
        assert_named(caught.value, said, value)
    with pytest.raises(sw.InvalidRequest):
        program.run_batch([{}], backend=client, **{name: [value] if name == "seed" else value})


def test_bad_values_with_choices_are_refused_too():
    for name, value in BAD:
        with pytest.raises(sw.InvalidRequest, match=name):
            sw.gen("a", choices=["x"], **{name: value})
    for value in BAD_VALUES["temperature"]:
        with pytest.raises(sw.InvalidRequest, match="temperature"):
            sw.select("a", ["x"], temperature=value)


@pytest.mark.parametrize("short", [sw.gen_int, sw.gen_string])
def test_the_short_forms_refuse_at_once_too(short):
    with pytest.raises(sw.InvalidRequest, match="stop_token_ids: 5.0"):
        short("a", stop_token_ids=5.0)


def test_the_stops_that_a_dtype_adds_count():
    stops = [str(i) for i in range(31)]
    sw.gen("a", stop=stops)
    with pytest.raises(sw.InvalidRequest, match="stop"):
        sw.gen("a", stop=stops, dtype=int)


def test_only_one_side_of_a_merge_needs_to_raise_the_limit(scripted):
    both = [
        sent(scripted, sw.gen("a", min_tokens=200), max_new_tokens=300),
        sent(scripted, sw.gen("a", max_tokens=300), min_new_tokens=200),
    ]
    assert [(r.sampling.min_tokens, r.sampling.max_tokens) for r in both] == [(200, 300)] * 2
    with pytest.raises(sw.InvalidRequest, match="min_tokens: 9 "):
        sw.gen("a", min_tokens=9, max_tokens=5)
    with pytest.raises(sw.InvalidRequest, match="min_new_tokens: 9 "):
        sw.function(lambda s: None).run(backend=scripted([]), min_new_tokens=9, max_new_tokens=5)


REFUSED_AT_SUBMIT = [  # only the merge with the run's defaults is wrong
    ("min_tokens", {"min_tokens": 200}, {}),
    ("min_tokens", {"min_tokens": 20}, {"max_new_tokens": 5}),
    ("top_logprobs_num", {"top_logprobs_num": 2}, {}),
    ("logprob_start_len", {"logprob_start_len": 1}, {}),
    ("return_text_in_logprobs", {"return_text_in_logprobs": True}, {}),
]


@pytest.mark.parametrize("name, options, run_options", REFUSED_AT_SUBMIT)
def test_refused_by_name_when_it_is_added(scripted, name, options, run_options):
    node = sw.gen("a", **options)
    with pytest.raises(sw.InvalidRequest, match=name):
        sent(scripted, node, **run_options)


# --- function and run --------------------------------------------------------------------------


def test_arguments_win_over_options_of_the_same_name(scripted):
    @sw.function
    def program(s, n, seed, temperature=0.5):
        s += sw.gen("a")
        return n, seed, temperature

    client = scripted(["x", "y"])
    assert program.run(n=3, seed="s", backend=client).ret_value == (3, "s", 0.5)
    assert program.run(3, "s", temperature=9, top_k=4, backend=client).ret_value == (3, "s", 9)
    sampling = client.requests[1].sampling
    assert (sampling.n, sampling.seed, sampling.temperature, sampling.top_k) == (1, None, 1.0, 4)


def test_keyword_arguments_of_any_name(scripted):
    @sw.function
    def program(s, **rest):
        return rest

    client = scripted([])
    assert program.run(x=1, temperature=0, backend=client).ret_value == {"x": 1}


def test_bind(scripted):
    @sw.function
    def program(s, a, b=2):
        """Adds."""
        return a, b

    client = scripted([])
    assert program.bind(a=1).run(backend=client).ret_value == (1, 2)
    assert program.bind(b=5).run(a=0, b=1, backend=client).ret_value == (0, 5)
    assert program.bind(a=1).bind(b=3)(backend=client).ret_value == (1, 3)
    assert program.bind(b=5).arg_names == ["a", "b"]
    assert (program.__name__, program.__doc__) == ("program", "Adds.")
    with pytest.raises(TypeError, match="'c'"):
        program.bind(c=1)


BAD_RUNS = [
    ((), {}, "missing.*'q'"),
    ((1, 2, 3), {}, "too many"),
    ((1,), {"q": 1}, "multiple"),
    ((), {"question": 1}, "did you mean"),
    ((1,), {"temperatur": 1}, "did you mean 'temperature'"),
]


@pytest.mark.parametrize("args, kwargs, message", BAD_RUNS)
def test_bad_arguments_are_type_errors(scripted, args, kwargs, message):
    @sw.function
    def program(s, q, questions=None):
        raise AssertionError("the body must not run")

    with pytest.raises(TypeError, match=message):
        program.run(*args, backend=scripted([]), **kwargs)


@pytest.mark.parametrize("options", [{"stream": 1}, {"use_thread": None}])
def test_flags_are_booleans(scripted, options):
    with pytest.raises(sw.InvalidRequest, match=next(iter(options))):
        sw.function(lambda s: None).run(backend=scripted([]), **options)


def test_one_option_by_two_names(scripted):
    with pytest.raises(sw.InvalidRequest, match="max_tokens"):
        sw.function(lambda s: None).run(backend=scripted([]), max_tokens=1, max_new_tokens=1)


async def async_generator(s):
    yield


def generator(s):
    yield


NO_PROGRAMS = [async_generator, generator, lambda: 0, lambda state: 0]


@pytest.mark.parametrize("func", NO_PROGRAMS)
def test_what_cannot_be_a_program_is_refused_at_decoration(func):
    with pytest.raises(TypeError, match=r"async|generator|\"s\""):
        sw.function(func)


def test_decorator_with_and_without_parentheses(scripted):
    @sw.function
    def one(s):
        s += "1"

    @sw.function()
    def two(s):
        s += "2"

    client = scripted([])
    assert [f(backend=client).text() for f in (one, two)] == ["1", "2"]


def test_expressions_are_data():
    node = "a" + sw.gen("x", 3) + "b"
    assert node == "a" + sw.gen("x", 3) + "b"
    assert node != "a" + sw.gen("x", 4) + "b"
    for wrong in (5, None, ["x"]):
        with pytest.raises(TypeError):
            node + wrong
        with pytest.raises(TypeError):
            wrong + node
    with pytest.raises(TypeError, match="user"):
        sw.user(5)


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-6, 1e-5])
def test_a_select_takes_what_is_as_good_as_zero(temperature):
    sw.select("x", ["a", "b"], temperature=temperature)
    sw.gen("x", choices=["a", "b"], temperature=temperature)


@pytest.mark.parametrize("temperature", [1.1e-5, -1e-6, True, "0", float("nan")])
def test_a_select_samples_nothing(temperature):
    with pytest.raises(sw.InvalidRequest, match="temperature"):
        sw.select("x", ["a", "b"], temperature=temperature)


@pytest.mark.parametrize("name", [5, None, ["x"]])
def test_a_variable_is_named_by_a_text(scripted, name):
    def program(s):
        with pytest.raises(sw.InvalidRequest, match="name"):
            s.set_var(name, 1)
        with pytest.raises(sw.InvalidRequest, match="name"), s.var_scope(name):
            pass

    sw.function(program).run(backend=scripted([]))
