"""Strategies (集成方案) of 轻易云 (Qeasy): read, checked, compiled and run here."""
