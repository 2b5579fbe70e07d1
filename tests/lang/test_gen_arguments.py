"""What the arguments of gen, select, run and function become, and what is refused by name."""

import inspect

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
    ({"json_schema": Person}, JsonSchema.of(Person.model_json_schema()), ()),
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
    assert list(inspect.signature(sw.select).parameters) == [
        "name",
        "choices",
        "temperature",
        "choices_method",
    ]


REFUSED = {
    "regex": lambda: sw.gen("a", regex="("),
    "json_schema": lambda: sw.gen("a", json_schema="{"),
    "json_schema ": lambda: sw.gen("a", json_schema=5),
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
    "num_api_spec_tokens": lambda: sw.function(num_api_spec_tokens=3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_where_it_is_said(name):
    with pytest.raises(sw.InvalidRequest, match=name.strip()):
        REFUSED[name]()


REFUSED_AT_SUBMIT = [
    ("temperature", {"temperature": -1}, {}),
    ("max_tokens", {"max_tokens": -1}, {}),
    ("min_tokens", {"min_tokens": 200}, {}),
    ("min_tokens", {"min_tokens": 20}, {"max_new_tokens": 5}),
    ("stop", {"stop": 5}, {}),
    ("stop", {"stop": [5]}, {}),
    ("stop_regex", {"stop_regex": "("}, {}),
    ("n", {}, {"n": 0}),
    ("logit_bias", {"logit_bias": [1]}, {}),
    ("seed", {"seed": "x"}, {}),
    ("top_logprobs_num", {"top_logprobs_num": 2}, {}),
    ("logprob_start_len", {"logprob_start_len": 1}, {}),
    ("return_text_in_logprobs", {"return_text_in_logprobs": True}, {}),
]


@pytest.mark.parametrize("name, options, run_options", REFUSED_AT_SUBMIT)
def test_refused_by_name_when_it_is_added(scripted, name, options, run_options):
    with pytest.raises(sw.InvalidRequest, match=name):
        sent(scripted, sw.gen("a", **options), **run_options)


# --- function and run -------------------------------------------------------------------------


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


async def coroutine(s):
    pass


async def async_generator(s):
    yield


def generator(s):
    yield


NO_PROGRAMS = [coroutine, async_generator, generator, lambda: 0, lambda state: 0]


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
