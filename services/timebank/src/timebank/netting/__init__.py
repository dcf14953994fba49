"""Netting: what cities owe each other in a circle is cleared without anybody paying."""
