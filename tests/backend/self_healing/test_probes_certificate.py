import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from backend.shared.self_healing.probes.certificate import not_after

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(until, organisation="shop"):
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organisation)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1950, 1, 2, tzinfo=datetime.UTC))
        .not_valid_after(until)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


@given(
    st.datetimes(datetime.datetime(1951, 1, 1), datetime.datetime(9999, 12, 31), timezones=st.just(datetime.UTC)),
    st.text("abc", min_size=1, max_size=60),
)
@example(datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC), "a")
@example(datetime.datetime(2050, 1, 1, tzinfo=datetime.UTC), "a")
@example(datetime.datetime(1951, 1, 1, tzinfo=datetime.UTC), "a")
def test_the_end_of_validity_is_read_as_the_issuer_wrote_it(until, organisation):
    until = until.replace(microsecond=0)
    assert not_after(certificate(until, organisation)) == until.timestamp()


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_refused(data):
    with pytest.raises(ValueError, match=r"no X\.509 certificate"):
        not_after(data)


def test_a_certificate_that_is_cut_short_is_refused_wherever_it_is_cut():
    whole = certificate(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"no X\.509 certificate"):
            not_after(whole[:end])
