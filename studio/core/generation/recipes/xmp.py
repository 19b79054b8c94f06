"""The XMP packet of an image: our request without loss, and that it was made with AI.

Knows: the packet's XML, our own namespace, IPTC's property. Does not know: how a packet comes into
a file (imaging/encode.py), what our JSON says (storage/gallery/images.py).

Sources: XMP specification part 1 (packet, RDF/XML); IPTC Photo Metadata Standard, "Digital Source
Type" of the IPTC Extension schema, and its NewsCodes (cv.iptc.org/newscodes/digitalsourcetype).
"""

from __future__ import annotations

import base64
import re
import zlib
from typing import Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from studio import __version__

SourceType = Literal["", "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]
MAX_PACKET_CHARS = 1_500_000  # our JSON at its longest, compressed to nothing less, in base64
MAX_JSON_BYTES = 1_000_000
LONG_JSON_BYTES = 32_000  # from here on it is compressed: a JPEG's packet has room for 65,504
OWN_NAMESPACE = "urn:x-studio:picture:1/"
_IPTC_NAMESPACE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_JSON_PROPERTY = "Metadata"
_COMPRESSED_PROPERTY = "MetadataDeflated"
# Characters that XML cannot hold even as references; in JSON they only stand within strings.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ROOT = re.compile(r"<((?:[A-Za-z_][\w.-]{0,40}:)?(?:xmpmeta|RDF))[\s>]")
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" {namespaces}>
{properties}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def build_packet(studio_json: str, source_type: SourceType) -> str:
    """Return a packet; empty where it would say nothing.

    Args:
        studio_json: Our JSON; empty for none.
        source_type: What IPTC calls it when it is made with AI: all of it, or on top of another
            picture; empty leaves it unsaid.
    """
    properties = {}
    namespaces = {}
    if source_type:
        namespaces["Iptc4xmpExt"] = _IPTC_NAMESPACE
        properties["Iptc4xmpExt:DigitalSourceType"] = _SOURCE_TYPES + source_type
    if studio_json:
        namespaces |= {"xmp": "http://ns.adobe.com/xap/1.0/", "studio": OWN_NAMESPACE}
        properties["xmp:CreatorTool"] = f"studio {__version__}"
        properties |= _build_json_property(studio_json)
    if not properties:
        return ""
    return _PACKET.format(
        namespaces=" ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in namespaces.items()),
        properties="\n".join(
            f"   <{name}>{escape(value)}</{name}>" for name, value in properties.items()
        ),
    )


def find_studio_json(packet: str) -> str:
    """Return our JSON out of a packet, whoever wrote that anew; empty where there is none."""
    if OWN_NAMESPACE not in packet:
        return ""
    for element in _list_elements(packet):
        for name, is_compressed in ((_JSON_PROPERTY, False), (_COMPRESSED_PROPERTY, True)):
            key = f"{{{OWN_NAMESPACE}}}{name}"
            # Some programs write simple properties as attributes.
            text = element.text if element.tag == key else element.get(key)
            if text:
                return _decompress(text) if is_compressed else text
    return ""


def list_texts(packet: str) -> list[str]:
    """Return all texts of a packet: of elements such as dc:description, and of attributes."""
    texts = []
    for element in _list_elements(packet):
        texts += [text for text in (element.text, *element.attrib.values()) if text]
    return [text.strip() for text in texts if not text.isspace()]


def _list_elements(packet: str) -> list[ElementTree.Element]:
    """Return the elements of a packet; none where it cannot be read."""
    root = _ROOT.search(packet) if len(packet) <= MAX_PACKET_CHARS else None
    end = packet.rfind(f"</{root[1]}>") if root else -1
    if root is None or end < 0:
        return []
    document = packet[root.start() : end + len(root[1]) + 3]
    if "<!" in document:  # nobody needs entities here
        return []
    try:
        return list(ElementTree.fromstring(document).iter())
    except (ElementTree.ParseError, ValueError, RecursionError):
        return []


def _build_json_property(studio_json: str) -> dict[str, str]:
    if len(studio_json.encode(errors="surrogatepass")) < LONG_JSON_BYTES:
        text = _NO_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", studio_json)
        return {f"studio:{_JSON_PROPERTY}": text}
    compressed = zlib.compress(studio_json.encode(errors="surrogatepass"), 9)
    return {f"studio:{_COMPRESSED_PROPERTY}": base64.b64encode(compressed).decode()}


def _decompress(text: str) -> str:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), MAX_JSON_BYTES)
        return "" if unpacker.unconsumed_tail else data.decode()
    except (ValueError, zlib.error):
        return ""
