//! The values of documents as Python's objects, and back; and the text of a Python object that its checksum is taken over.
//!
//! What `json.dumps` takes is taken the same way, but for three things: names must be text, as Python sorts others before it turns
//! them into text; a lone surrogate is no text; and arrays and objects nest no deeper than `limits::VALUE_DEPTH_MAX`.

use std::collections::BTreeMap;

use edgeward::{EdgeError, Integer, Object, Value, limits::VALUE_DEPTH_MAX, python_json::Writer};
use pyo3::{
    exceptions::{PyTypeError, PyUnicodeEncodeError},
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};

use crate::errors::exception;

/// An error on the way through Python's objects: an exception, or one of ours.
pub(crate) enum Refused {
    Raised(PyErr),
    Ours(EdgeError),
}

impl From<EdgeError> for Refused {
    fn from(error: EdgeError) -> Self {
        Self::Ours(error)
    }
}

impl From<PyErr> for Refused {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl From<pyo3::CastError<'_, '_>> for Refused {
    fn from(error: pyo3::CastError<'_, '_>) -> Self {
        Self::Raised(error.into())
    }
}

impl Refused {
    pub(crate) fn into_exception(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Raised(error) => error,
            Self::Ours(error) => exception(py, &error),
        }
    }
}

/// What a Python object is to JSON.
enum Kind<'a, 'py> {
    Null,
    Bool(bool),
    Small(i64),
    Integer(Integer),
    Float(f64),
    String(&'a str),
    List(&'a Bound<'py, PyList>),
    Tuple(&'a Bound<'py, PyTuple>),
    Dict(&'a Bound<'py, PyDict>),
}

fn kind<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Result<Kind<'a, 'py>, Refused> {
    // In the order of what documents mostly hold; a bool is an int to Python, and so is looked for first.
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Kind::String(text_of(text)?));
    }
    if object.is_none() {
        return Ok(Kind::Null);
    }
    if let Ok(value) = object.cast::<PyBool>() {
        return Ok(Kind::Bool(value.is_true()));
    }
    if let Ok(number) = object.cast::<PyInt>() {
        return integer(number);
    }
    if let Ok(number) = object.cast::<PyFloat>() {
        return Ok(Kind::Float(number.value()));
    }
    if let Ok(items) = object.cast::<PyDict>() {
        return Ok(Kind::Dict(items));
    }
    if let Ok(items) = object.cast::<PyList>() {
        return Ok(Kind::List(items));
    }
    if let Ok(items) = object.cast::<PyTuple>() {
        return Ok(Kind::Tuple(items));
    }
    let name = object.get_type().name()?;
    Err(PyTypeError::new_err(format!("Object of type {name} is not JSON serializable")).into())
}

fn integer<'a, 'py>(number: &Bound<'py, PyInt>) -> Result<Kind<'a, 'py>, Refused> {
    if let Ok(small) = number.extract::<i64>() {
        return Ok(Kind::Small(small));
    }
    // Of more digits than Python writes this raises its ValueError.
    let int = number.py().get_type::<PyInt>();
    let digits = int.getattr("__repr__")?.call1((number,))?;
    Ok(Kind::Integer(digits.cast::<PyString>()?.to_str()?.parse()?))
}

fn text_of<'a>(text: &'a Bound<'_, PyString>) -> Result<&'a str, Refused> {
    text.to_str().map_err(|error| {
        if error.is_instance_of::<PyUnicodeEncodeError>(text.py()) {
            let message = "the value is not valid: it holds a lone surrogate, which is no character";
            EdgeError::invalid(message).into()
        } else {
            error.into()
        }
    })
}

type Member<'py> = (Bound<'py, PyString>, Bound<'py, PyAny>);

/// The members of a dictionary, with names that are text.
fn members<'py>(dict: &Bound<'py, PyDict>) -> Result<Vec<Member<'py>>, Refused> {
    let mut members = Vec::with_capacity(dict.len());
    for (name, value) in dict.iter() {
        match name.cast_into::<PyString>() {
            Ok(name) => members.push((name, value)),
            Err(error) => {
                let class = error.into_inner().get_type();
                let message = format!("the value is not valid: a key is of type {}; keys must be str", class.name()?);
                return Err(EdgeError::invalid(message).into());
            }
        }
    }
    Ok(members)
}

/// Writes an object as Python's `json.dumps(object, sort_keys=True)`.
pub(crate) fn write(writer: &mut Writer<'_>, object: &Bound<'_, PyAny>) -> Result<(), Refused> {
    match kind(object)? {
        Kind::Null => writer.null(),
        Kind::Bool(value) => writer.bool(value),
        Kind::Small(number) => writer.small_integer(number),
        Kind::Integer(number) => writer.integer(&number),
        Kind::Float(number) => writer.float(number),
        Kind::String(text) => writer.string(text),
        Kind::List(items) => writer.array(items, |writer, item| write(writer, &item))?,
        Kind::Tuple(items) => writer.array(items, |writer, item| write(writer, &item))?,
        Kind::Dict(dict) => {
            let members = members(dict)?;
            let mut sorted = Vec::with_capacity(members.len());
            for (name, value) in &members {
                sorted.push((text_of(name)?, value));
            }
            sorted.sort_unstable_by_key(|(name, _)| *name);
            writer.object(sorted, write)?;
        }
    }
    Ok(())
}

/// The data of a state: a `dict`.
pub(crate) fn object_of(data: &Bound<'_, PyAny>) -> PyResult<Object> {
    let dict = data.cast::<PyDict>().map_err(|_| not_a_dict(data))?;
    object(dict, VALUE_DEPTH_MAX).map_err(|refused| refused.into_exception(data.py()))
}

/// The error of data that is no `dict`.
pub(crate) fn not_a_dict(data: &Bound<'_, PyAny>) -> PyErr {
    let name = data.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("the data of a state must be a dict, not {name}"))
}

fn object(dict: &Bound<'_, PyDict>, levels: usize) -> Result<Object, Refused> {
    let levels = below(levels)?;
    let mut object = BTreeMap::new();
    for (name, item) in members(dict)? {
        object.insert(text_of(&name)?.to_owned(), value(&item, levels)?);
    }
    Ok(Object(object))
}

/// Any value of a document.
pub(crate) fn value_of(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    value(object, VALUE_DEPTH_MAX).map_err(|refused| refused.into_exception(object.py()))
}

fn value(from: &Bound<'_, PyAny>, levels: usize) -> Result<Value, Refused> {
    Ok(match kind(from)? {
        Kind::Null => Value::Null,
        Kind::Bool(value) => value.into(),
        Kind::Small(number) => number.into(),
        Kind::Integer(number) => number.into(),
        Kind::Float(number) => number.into(),
        Kind::String(text) => text.into(),
        Kind::List(items) => array(items, levels)?,
        Kind::Tuple(items) => array(items, levels)?,
        Kind::Dict(dict) => object(dict, levels)?.into(),
    })
}

fn array<'py>(items: impl IntoIterator<Item = Bound<'py, PyAny>>, levels: usize) -> Result<Value, Refused> {
    let levels = below(levels)?;
    Ok(items.into_iter().map(|item| value(&item, levels)).collect::<Result<Vec<_>, _>>()?.into())
}

fn below(levels: usize) -> Result<usize, EdgeError> {
    let deep = || EdgeError::invalid(format!("the value is not valid: its arrays and objects nest deeper than {VALUE_DEPTH_MAX}"));
    levels.checked_sub(1).ok_or_else(deep)
}

/// A value as Python's object.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::Integer(number) => match number.as_i64() {
            Some(small) => small.into_pyobject(py)?.into_any(),
            None => py.get_type::<PyInt>().call1((number.to_string(),))?,
        },
        Value::Float(number) => PyFloat::new(py, *number).into_any(),
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            items.iter().try_for_each(|item| list.append(to_python(py, item)?))?;
            list.into_any()
        }
        Value::Object(object) => object_to_python(py, object)?.into_any(),
    })
}

/// An object as Python's `dict`.
pub(crate) fn object_to_python<'py>(py: Python<'py>, object: &Object) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    object.0.iter().try_for_each(|(name, value)| dict.set_item(name, to_python(py, value)?))?;
    Ok(dict)
}
